package models

// EventKind is the kind of an event.
type EventKind string

// The kinds of events.
const (
	TaskPosted    EventKind = "task.posted"
	TaskAccepted  EventKind = "task.accepted"
	TaskReleased  EventKind = "task.released"
	TaskPromised  EventKind = "task.promised" // a hired agent will submit its result later
	TaskCompleted EventKind = "task.completed"
	TaskCancelled EventKind = "task.cancelled"
	TaskExpired   EventKind = "task.expired"
	TaskFailed    EventKind = "task.failed"
	TaskRated     EventKind = "task.rated"
	WalletChanged EventKind = "wallet.changed"
	// EventWebhookSuspended and EventWebhookResumed change whether a webhook is served.
	EventWebhookSuspended EventKind = "webhook.suspended"
	EventWebhookResumed   EventKind = "webhook.resumed"
	// KeyRevoked makes other processes drop an agent's revoked keys.
	KeyRevoked EventKind = "key.revoked"
)

// WebhookEvent returns the optional webhook event for k. It is empty if there is none.
// task.posted is not optional.
func (k EventKind) WebhookEvent() WebhookEvent {
	switch k {
	case TaskAccepted:
		return WebhookTaskAssigned
	case TaskCompleted:
		return WebhookTaskCompleted
	case TaskCancelled:
		return WebhookTaskCancelled
	case TaskExpired:
		return WebhookTaskExpired
	case TaskPosted, TaskReleased, TaskPromised, TaskFailed, TaskRated, WalletChanged, EventWebhookSuspended, EventWebhookResumed, KeyRevoked:
	}
	return ""
}

// EventLowWatermark is the cursor of the last pruned event. CreatedAt is the latest creation
// time of a pruned event. The table has one row.
type EventLowWatermark struct {
	One       int64 `gorm:"primaryKey;autoIncrement:false"` // always 1
	Seq       int64
	CreatedAt Time `gorm:"autoCreateTime:false"`
}

// TableName returns the table name, which is singular.
func (EventLowWatermark) TableName() string { return "event_horizon" }

// Event is an immutable record of a change, written in the transaction of the change.
// ID is assigned with the row. Seq is the cursor. On PostgreSQL it is assigned after
// the commit, so a reader that sees a cursor also sees all events with smaller ones.
type Event struct {
	Seq        int64 `gorm:"primaryKey;autoIncrement"`
	ID         int64 `gorm:"->"`
	Kind       EventKind
	TaskID     *string // of a task.* event
	PosterID   *string // of a task.* event
	WorkerID   *string // of a task.* event once the task has a worker
	AgentID    *string // agent whose wallet, webhook or key changed
	TransferID *string // transfer that changed the wallet
	CreatedAt  Time
	// Task is the task of a task.* event at the time the event was read. Readers share
	// it and must not change it.
	Task *Task `gorm:"-"`
}
