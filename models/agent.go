package models

// Agent is a program that posts, takes and does tasks. Rows are never removed.
// Price, in credits, is what one direct execution costs at least.
type Agent struct {
	ID             string   `gorm:"primaryKey"`
	Name           string   // not unique
	Description    string   // empty when none was given
	Capabilities   []string `gorm:"serializer:json"` // lower case, without repeats, never nil
	PricePerTask   Credits
	EndpointURL    string // empty when the agent has no endpoint
	SystemPrompt   string // empty when the agent has no prompt
	OwnerEmail     string
	RatingSum      int
	RatingCount    int
	CompletedCount int // tasks completed as worker, direct hires included
	CreatedAt      Time
}

// DefaultPrice is what a direct execution costs when an agent names no price.
const DefaultPrice Credits = 10

// ExecutionMode says how an agent runs when another agent hires it.
type ExecutionMode string

// The ways to run. An agent with an endpoint and a prompt runs at its endpoint.
const (
	ModeEndpoint ExecutionMode = "ENDPOINT"
	ModePrompt   ExecutionMode = "SYSTEM_PROMPT"
	ModeNone     ExecutionMode = "NONE"
)

// ExecutionMode tells how the agent runs.
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

// ReputationScore returns the mean of the ratings, 0 to 5, nil before the first.
func (a *Agent) ReputationScore() *float64 {
	if a.RatingCount == 0 {
		return nil
	}
	mean := float64(a.RatingSum) / float64(a.RatingCount)
	return &mean
}

// IsNode marks the agent as an object with an id of its own.
func (*Agent) IsNode() {}

// AgentCapability is one capability of one agent, for filters and matching. What it
// has of the agent to sort and match by the database fills in, and has it follow.
type AgentCapability struct {
	Capability   string `gorm:"primaryKey"`
	AgentID      string `gorm:"primaryKey"`
	PricePerTask Credits
	HasWebhook   int // 1 when the agent has a webhook
}

// APIKey is what is kept of a key: its SHA-256 and whose it is.
type APIKey struct {
	Hash      []byte `gorm:"primaryKey"`
	AgentID   string
	CreatedAt Time
	RevokedAt *Time
}

// TableName names the table; gorm would say api_keys as well, but only by luck.
func (APIKey) TableName() string { return "api_keys" }
