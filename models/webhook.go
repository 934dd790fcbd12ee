package models

import (
	"slices"
	"strings"
)

// WebhookStatus is the status of a webhook.
type WebhookStatus string

// The statuses of a webhook. A suspended webhook gets no requests until its owner
// resumes it.
const (
	WebhookActive    WebhookStatus = "active"
	WebhookSuspended WebhookStatus = "suspended"
)

// WebhookSuspension is the reason for a suspension.
type WebhookSuspension string

// The reasons for a suspension: the endpoint responded with status 410, or all requests
// failed for days.
const (
	SuspendedGone    WebhookSuspension = "gone"
	SuspendedFailing WebhookSuspension = "failing"
)

// WebhookEvent is the name of an event in a webhook request.
type WebhookEvent string

// The webhook events. Every webhook receives WebhookTaskPosted for tasks that match the
// agent. The others are optional and go to the poster and the worker of the task.
const (
	WebhookTaskPosted    WebhookEvent = "task.posted"
	WebhookTaskAssigned  WebhookEvent = "task.assigned"
	WebhookTaskCompleted WebhookEvent = "task.completed"
	WebhookTaskCancelled WebhookEvent = "task.cancelled"
	WebhookTaskExpired   WebhookEvent = "task.expired"
)

// WebhookEvents returns all webhook events.
func WebhookEvents() []WebhookEvent {
	return []WebhookEvent{WebhookTaskPosted, WebhookTaskAssigned, WebhookTaskCompleted, WebhookTaskCancelled, WebhookTaskExpired}
}

// NormalizeWebhookEvents returns the optional events in a list, without duplicates and
// in the order of WebhookEvents. It returns INVALID_INPUT for field if an event is
// unknown.
func NormalizeWebhookEvents(field string, events []WebhookEvent) ([]WebhookEvent, error) {
	optional := []WebhookEvent{}
	for _, event := range WebhookEvents() {
		if event != WebhookTaskPosted && slices.Contains(events, event) {
			optional = append(optional, event)
		}
	}
	for _, event := range events {
		if !slices.Contains(WebhookEvents(), event) {
			return nil, FieldErrorf(field, "must contain only %v", WebhookEvents())
		}
	}
	return optional, nil
}

// Webhook is the webhook of an agent.
type Webhook struct {
	AgentID         string `gorm:"primaryKey"`
	URL             string
	Status          WebhookStatus
	FailingSince    *Time // first failure since the last success
	SuspendedAt     *Time // nil while active, like SuspendedReason
	SuspendedReason *WebhookSuspension
	Events          []WebhookEvent `gorm:"serializer:json"`      // optional events; never nil
	UpdatedAt       Time           `gorm:"autoUpdateTime:false"` // last time it was set or resumed; gorm would write seconds
}

// MaskedURL returns the URL masked by MaskURL.
func (w *Webhook) MaskedURL() string { return MaskURL(w.URL) }

// AllEvents returns WebhookTaskPosted and the optional events.
func (w *Webhook) AllEvents() []WebhookEvent {
	return append([]WebhookEvent{WebhookTaskPosted}, w.Events...)
}

// Secret signs webhook requests to an agent. It is encrypted.
type Secret struct {
	AgentID   string `gorm:"primaryKey"`
	Encrypted []byte
	Hint      string // first characters of the secret
}

// PreviousSecret is a replaced Secret. It also signs requests until SignsUntil.
type PreviousSecret struct {
	AgentID    string `gorm:"primaryKey"`
	ID         string `gorm:"primaryKey"` // ascends in the order of the rotations
	Encrypted  []byte
	SignsUntil Time
}

// SecretKey is a key that encrypts values of the database.
type SecretKey struct {
	ID string `gorm:"primaryKey"` // derived from the key; does not reveal it
}

// DeliveryStatus is the status of a delivery.
type DeliveryStatus string

// The statuses of a delivery.
const (
	DeliveryPending   DeliveryStatus = "pending"
	DeliveryDelivered DeliveryStatus = "delivered"
	DeliveryFailed    DeliveryStatus = "failed"
)

// Delivery is the delivery of one event to one webhook. The header
// X-AgentMarket-Delivery carries its ID, which is the same for all attempts.
type Delivery struct {
	ID             string `gorm:"primaryKey"`
	AgentID        string
	EventID        int64
	TaskID         string
	Event          WebhookEvent
	WorkerID       *string // worker of the event; nil for task.posted
	Status         DeliveryStatus
	Attempts       int // number of attempts so far
	AttemptsLeft   int // until the delivery fails
	ResponseStatus *int
	LastError      *string
	CreatedAt      Time
	LastAttemptAt  *Time
	NextAttemptAt  *Time
}

// FailedDeliveryQuery selects failed deliveries of events created at or after Since and
// before Until. It returns at most First deliveries with IDs greater than After.
type FailedDeliveryQuery struct {
	Since Time
	Until *Time
	After string
	First int
}

// IsNode marks the type as an implementation of the GraphQL interface Node.
func (*Delivery) IsNode() {}

// Attempt is one attempt of a delivery.
type Attempt struct {
	DeliveryID     string `gorm:"primaryKey"`
	Number         int    `gorm:"primaryKey"` // from 1
	StartedAt      Time
	LatencyUS      int64 `gorm:"column:latency_us"`
	ResponseStatus *int  // nil if there was no response
	Error          *string
	ResponseBody   string // truncated
	// RequestHeaders are the headers set by the server. ResponseHeaders are the first
	// headers of the response. Neither is nil.
	RequestHeaders  []Header `gorm:"serializer:json"`
	ResponseHeaders []Header `gorm:"serializer:json"`
}

// Header is a line of an HTTP header.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// LatencyMs returns the duration of the attempt in milliseconds.
func (a *Attempt) LatencyMs() float64 { return float64(a.LatencyUS) / 1000 }

// visibleTail is the maximum number of characters that MaskURL shows.
const visibleTail = 10

// MaskURL replaces a URL by three dots and its last 10 characters, starting at the
// first slash among them. https://my-bot.com/callback becomes .../callback.
func MaskURL(url string) string {
	tail := []rune(url)
	if len(tail) > visibleTail {
		tail = tail[len(tail)-visibleTail:]
	}
	if i := strings.Index(string(tail), "/"); i >= 0 {
		return "..." + string(tail)[i:]
	}
	return "..." + string(tail)
}
