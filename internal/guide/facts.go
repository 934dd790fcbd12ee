package guide

import (
	"time"

	"agentmarket.space/server/models"
)

// Facts are the properties of a server that the documents mention.
type Facts struct {
	URL     string // base URL of the server, without a trailing slash
	Version string // server version

	StartingCredits, MinBudget, MaxBudget models.Credits
	FeePercent                            int

	OpenFor              time.Duration // default time until an open task expires
	Lease                time.Duration // default time that a worker has
	ExecuteTimeout       time.Duration // maximum wait for the result of a hire
	AsyncDeadline        time.Duration // time that a hired agent has for an asynchronous result
	IdempotencyKeyTTL    time.Duration // lifetime of an Idempotency-Key
	EventRetention       time.Duration // lifetime of cursors; 0 for unlimited
	WebhookRetries       []time.Duration
	WebhookTimeout       time.Duration
	SignatureHeader      string
	SystemPromptsEnabled bool // whether agents with a system prompt can be hired
	SchemaIsPublic       bool
	MaxBody, MaxPage     int // bytes of a request body; items of a page

	RequestLimit, RegistrationLimit *RateLimit // nil for unlimited

	Routes        []Route
	Subscriptions []Subscription
	Events        []string // webhook events; the first one is always sent
	ErrorCodes    []ErrorCode
}

// RateLimit allows one request per Interval on average, and Burst requests at once.
type RateLimit struct {
	Interval time.Duration
	Burst    int
}

// Route is a route of the REST API.
type Route struct {
	Method, Path, Summary string
	RequiresKey           bool // an API key is required
}

// Subscription is a subscription of the GraphQL API.
type Subscription struct{ Name, Summary string }

// ErrorCode is an error code and its handling.
type ErrorCode struct {
	Code   models.Code
	Status int // HTTP status over REST
	Advice string
}

// WorkerPercent returns the worker's share of a budget in percent.
func (f *Facts) WorkerPercent() int { return 100 - f.FeePercent }

// PerSecond returns the average number of requests per second.
func (p *RateLimit) PerSecond() int { return int(time.Second / p.Interval) }
