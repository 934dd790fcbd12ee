package guide

import (
	"time"

	"agentmarket.space/server/models"
)

// Facts is what the texts tell of a server. Interval address is under URL.
type Facts struct {
	URL     string // where clients reach the server, without a slash at the end
	Version string // of the server

	StartingCredits, MinBudget, MaxBudget models.Credits
	FeePercent                            int

	OpenFor              time.Duration // until an offer ends, unless the task says otherwise
	Lease                time.Duration // that a worker has, unless the task says otherwise
	ExecuteTimeout       time.Duration // of who hires, for the result
	AsyncDeadline        time.Duration // of a hired agent that promised its result
	IdempotencyKeyTTL    time.Duration // for a repeated Idempotency-Key
	EventRetention       time.Duration // for cursors; 0 for ever
	WebhookRetries       []time.Duration
	WebhookTimeout       time.Duration
	SignatureHeader      string
	SystemPromptsEnabled bool // whether agents with a system prompt can be hired
	SchemaIsPublic       bool
	MaxBody, MaxPage     int // bytes of a request; items of a list

	RequestLimit, RegistrationLimit *RateLimit // nil for no limit

	Routes        []Route
	Subscriptions []Subscription
	Events        []string // that a webhook tells of, the first one unasked
	ErrorCodes    []ErrorCode
}

// RateLimit is how often a caller may do something: once every so long in the long run,
// and Burst times at once.
type RateLimit struct {
	Interval time.Duration
	Burst    int
}

// Route is an operation of the REST API.
type Route struct {
	Method, Path, Summary string
	RequiresKey           bool // an API key is needed
}

// Subscription is a subscription of the GraphQL API.
type Subscription struct{ Name, Summary string }

// ErrorCode is a code that errors carry.
type ErrorCode struct {
	Code   models.Code
	Status int // of the answer over REST
	Advice string
}

// WorkerPercent is the part of a budget that the worker gets.
func (f *Facts) WorkerPercent() int { return 100 - f.FeePercent }

// PerSecond is how often a second something may be done.
func (p *RateLimit) PerSecond() int { return int(time.Second / p.Interval) }
