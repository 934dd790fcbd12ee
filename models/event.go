package models

// EventKind is what happened.
type EventKind string

// Everything that is told of.
const (
	TaskPosted    EventKind = "task.posted"
	TaskAccepted  EventKind = "task.accepted"
	TaskReleased  EventKind = "task.released"
	TaskPromised  EventKind = "task.promised" // a hired agent will hand in its result itself
	TaskCompleted EventKind = "task.completed"
	TaskCancelled EventKind = "task.cancelled"
	TaskExpired   EventKind = "task.expired"
	TaskFailed    EventKind = "task.failed"
	TaskRated     EventKind = "task.rated"
	WalletChanged EventKind = "wallet.changed"
	// EventWebhookSuspended and EventWebhookResumed say whether an agent is notified.
	EventWebhookSuspended EventKind = "webhook.suspended"
	EventWebhookResumed   EventKind = "webhook.resumed"
	// KeyRevoked has other processes forget an agent's old key.
	KeyRevoked EventKind = "key.revoked"
)

// WebhookEvent returns what webhooks call an event that agents may ask for; empty for
// what they cannot, and for posted tasks, of which they are told anyway.
func (k EventKind) WebhookEvent() WebhookEvent {
	switch k {
	case TaskAccepted:
		return HookAssigned
	case TaskCompleted:
		return HookCompleted
	case TaskCancelled:
		return HookCancelled
	case TaskExpired:
		return HookExpired
	case TaskPosted, TaskReleased, TaskPromised, TaskFailed, TaskRated, WalletChanged, EventWebhookSuspended, EventWebhookResumed, KeyRevoked:
	}
	return ""
}

// EventHorizon is up to which event the log is no longer kept. CreatedAt is the
// newest time that one of those had.
type EventHorizon struct {
	One       int64 `gorm:"primaryKey;autoIncrement:false"` // there is one row
	Seq       int64
	CreatedAt Time `gorm:"autoCreateTime:false"`
}

// TableName names the table: it is one row.
func (EventHorizon) TableName() string { return "event_horizon" }

// Event is one immutable fact, written in the transaction that made it true. ID
// names it from then on. Seq is its cursor, which it may be given only after its
// commit: who reads a cursor can read every event with a lower one.
type Event struct {
	Seq        int64 `gorm:"primaryKey;autoIncrement"`
	ID         int64 `gorm:"->"`
	Kind       EventKind
	TaskID     *string // of a task.* event
	PosterID   *string // of a task.* event
	WorkerID   *string // of a task.* event once the task has a worker
	AgentID    *string // whose wallet, webhook or key changed
	TransferID *string // what changed it
	CreatedAt  Time
	// Task is the task of a task.* event as it was when the event was read from
	// the log. Many readers share it: it must not be changed.
	Task *Task `gorm:"-"`
}
