package models

import (
	"slices"
	"strings"
)

// WebhookStatus says whether a webhook is served.
type WebhookStatus string

// A suspended webhook failed for days or answered 410, until its owner resumes it.
const (
	WebhookActive    WebhookStatus = "active"
	WebhookSuspended WebhookStatus = "suspended"
)

// WebhookSuspension is why a webhook is suspended.
type WebhookSuspension string

// It answered 410, or did nothing but fail for days.
const (
	SuspendedGone    WebhookSuspension = "gone"
	SuspendedFailing WebhookSuspension = "failing"
)

// WebhookEvent is what a webhook tells of, in the words that are sent.
type WebhookEvent string

// Every agent is told of posted tasks that suit it. Of the others, the poster and the
// worker of the task are told who asked for it.
const (
	HookPosted    WebhookEvent = "task.posted"
	HookAssigned  WebhookEvent = "task.assigned"
	HookCompleted WebhookEvent = "task.completed"
	HookCancelled WebhookEvent = "task.cancelled"
	HookExpired   WebhookEvent = "task.expired"
)

// WebhookEvents returns all of them.
func WebhookEvents() []WebhookEvent {
	return []WebhookEvent{HookPosted, HookAssigned, HookCompleted, HookCancelled, HookExpired}
}

// NormalizeWebhookEvents returns those of the given events that are to be asked for, each once and in
// one order, and refuses what is none with INVALID_INPUT about the field.
func NormalizeWebhookEvents(field string, given []WebhookEvent) ([]WebhookEvent, error) {
	asked := []WebhookEvent{}
	for _, event := range WebhookEvents() {
		if event != HookPosted && slices.Contains(given, event) {
			asked = append(asked, event)
		}
	}
	for _, event := range given {
		if !slices.Contains(WebhookEvents(), event) {
			return nil, Invalid(field, "must be of %v", WebhookEvents())
		}
	}
	return asked, nil
}

// Webhook is where an agent is notified.
type Webhook struct {
	AgentID         string `gorm:"primaryKey"`
	URL             string
	Status          WebhookStatus
	FailingSince    *Time // the first failure since the last success
	SuspendedAt     *Time // nil while it is served, as SuspendedReason
	SuspendedReason *WebhookSuspension
	Events          []WebhookEvent `gorm:"serializer:json"`      // asked for beside HookPosted; never nil
	UpdatedAt       Time           `gorm:"autoUpdateTime:false"` // when it was last set or resumed; gorm would put seconds in it
}

// MaskedURL is the address with all but its end hidden.
func (w *Webhook) MaskedURL() string { return MaskURL(w.URL) }

// AllEvents is every event that the webhook tells of.
func (w *Webhook) AllEvents() []WebhookEvent { return append([]WebhookEvent{HookPosted}, w.Events...) }

// Secret signs what is sent to an agent. Encrypted and Previous are encrypted;
// Previous signs in addition until PreviousUntil.
type Secret struct {
	AgentID       string `gorm:"primaryKey"`
	Encrypted     []byte
	Hint          string // the first characters, to tell secrets apart
	Previous      []byte
	PreviousUntil *Time
}

// DeliveryStatus says where a delivery stands.
type DeliveryStatus string

// The states of a delivery.
const (
	DeliveryPending   DeliveryStatus = "pending"
	DeliveryDelivered DeliveryStatus = "delivered"
	DeliveryFailed    DeliveryStatus = "failed"
)

// Delivery is one event on its way to one webhook. The id goes out as
// X-AgentMarket-Delivery and stays the same over all attempts.
type Delivery struct {
	ID             string `gorm:"primaryKey"`
	AgentID        string
	EventID        int64
	TaskID         string
	Event          WebhookEvent
	WorkerID       *string // of the event, nil of a posted task
	Status         DeliveryStatus
	Attempts       int // made so far
	AttemptsLeft   int // before the delivery is given up
	ResponseStatus *int
	LastError      *string
	CreatedAt      Time
	LastAttemptAt  *Time
	NextAttemptAt  *Time
}

// FailedDeliveryQuery is which deliveries that were given up to look at: those of events
// from Since until before Until, after the delivery After, First at most.
type FailedDeliveryQuery struct {
	Since Time
	Until *Time
	After string
	First int
}

// IsNode marks the delivery as an object with an id of its own.
func (*Delivery) IsNode() {}

// Attempt is one try of a delivery.
type Attempt struct {
	DeliveryID     string `gorm:"primaryKey"`
	Number         int    `gorm:"primaryKey"` // from 1
	StartedAt      Time
	LatencyUS      int64 `gorm:"column:latency_us"`
	ResponseStatus *int  // nil when no answer came
	Error          *string
	ResponseBody   string // its first bytes
	// RequestHeaders are those that the server set, ResponseHeaders the first of the
	// answer; both are never nil.
	RequestHeaders  []Header `gorm:"serializer:json"`
	ResponseHeaders []Header `gorm:"serializer:json"`
}

// Header is one line of an HTTP header.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// LatencyMs is how long the try took, in milliseconds.
func (a *Attempt) LatencyMs() float64 { return float64(a.LatencyUS) / 1000 }

// visibleTail is how much of an address's end is shown at most.
const visibleTail = 10

// MaskURL hides an address but for its end: three dots and the last ten
// characters, cut at their first slash. https://my-bot.com/callback becomes
// .../callback.
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
