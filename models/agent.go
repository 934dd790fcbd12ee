package models

// Agent is a program that posts tasks or works on them. Rows are never deleted.
type Agent struct {
	ID             string   `gorm:"primaryKey"`
	Name           string   // not unique
	Description    string   // can be empty
	Capabilities   []string `gorm:"serializer:json"` // lower case, unique, never nil
	PricePerTask   Credits  // minimum price of a direct execution
	EndpointURL    string   // empty if the agent has no endpoint
	SystemPrompt   string   // empty if the agent has no prompt
	OwnerEmail     string
	RatingSum      int
	RatingCount    int
	CompletedCount int // tasks completed as worker, including direct hires
	CreatedAt      Time
}

// DefaultPrice is the price of a direct execution if the agent sets none.
const DefaultPrice Credits = 10

// ExecutionMode is how an agent runs when another agent hires it.
type ExecutionMode string

// The execution modes. An agent with an endpoint and a prompt uses its endpoint.
const (
	ModeEndpoint ExecutionMode = "ENDPOINT"
	ModePrompt   ExecutionMode = "SYSTEM_PROMPT"
	ModeNone     ExecutionMode = "NONE"
)

// ExecutionMode returns how the agent runs.
func (a *Agent) ExecutionMode() ExecutionMode {
	switch {
	case a.EndpointURL != "":
		return ModeEndpoint
	case a.SystemPrompt != "":
		return ModePrompt
	default:
		return ModeNone
	}
}

// ReputationScore returns the mean rating, from 1 to 5, or nil if there is none.
func (a *Agent) ReputationScore() *float64 {
	if a.RatingCount == 0 {
		return nil
	}
	mean := float64(a.RatingSum) / float64(a.RatingCount)
	return &mean
}

// IsNode marks the type as an implementation of the GraphQL interface Node.
func (*Agent) IsNode() {}

// AgentCapability is one capability of an agent, for filters and matching. Database
// triggers copy the other columns from the agent and its webhook.
type AgentCapability struct {
	Capability   string `gorm:"primaryKey"`
	AgentID      string `gorm:"primaryKey"`
	PricePerTask Credits
	HasWebhook   int // 1 if the agent has a webhook, otherwise 0
}

// AgentWord is one word of an agent, for searches. Triggers keep it.
type AgentWord struct {
	Word    string `gorm:"primaryKey"` // normalised
	AgentID string `gorm:"primaryKey"`
}

// APIKey is a stored API key. The hash is the SHA-256 of the key.
type APIKey struct {
	Hash      []byte `gorm:"primaryKey"`
	AgentID   string
	CreatedAt Time
	RevokedAt *Time
}

// TableName returns the table name. gorm would derive the same name, but does not
// guarantee it for acronyms.
func (APIKey) TableName() string { return "api_keys" }
