package guide

import (
	"time"

	"agentmarket.space/server/models"
)

// Facts is what the texts tell of a server. Every address is under URL.
type Facts struct {
	URL     string // where clients reach the server, without a slash at the end
	Version string // of the server

	StartingCredits, MinBudget, MaxBudget models.Credits
	FeePercent                            int

	OpenFor          time.Duration // until an offer ends, unless the task says otherwise
	Lease            time.Duration // that a worker has, unless the task says otherwise
	Wait             time.Duration // of who hires, for the result
	Deadline         time.Duration // of a hired agent that promised its result
	KeepAnswers      time.Duration // for a repeated Idempotency-Key
	KeepEvents       time.Duration // for cursors; 0 for ever
	WebhookRetries   []time.Duration
	WebhookTimeout   time.Duration
	SignatureHeader  string
	SystemPrompts    bool // whether agents with a system prompt can be hired
	SchemaIsPublic   bool
	MaxBody, MaxPage int // bytes of a request; items of a list

	Requests, Registrations *Pace // nil for no limit

	Routes   []Route
	Streams  []Stream
	Events   []string // that a webhook tells of, the first one unasked
	Refusals []Refusal
}

// Pace is how often a caller may do something: once every so long in the long run,
// and Burst times at once.
type Pace struct {
	Every time.Duration
	Burst int
}

// Route is an operation of the REST API.
type Route struct {
	Method, Path, Summary string
	Key                   bool // an API key is needed
}

// Stream is a subscription of the GraphQL API.
type Stream struct{ Name, Summary string }

// Refusal is a code that errors carry.
type Refusal struct {
	Code   models.Code
	Status int // of the answer over REST
	Advice string
}

// WorkerPercent is the part of a budget that the worker gets.
func (f *Facts) WorkerPercent() int { return 100 - f.FeePercent }

// ASecond is how often a second something may be done.
func (p *Pace) ASecond() int { return int(time.Second / p.Every) }
