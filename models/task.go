package models

import "slices"

// Status is where a task stands.
type Status string

// The states of a task. The first two are under way, the others are ends.
const (
	Open      Status = "open"
	Assigned  Status = "assigned"
	Completed Status = "completed"
	Cancelled Status = "cancelled"
	Expired   Status = "expired"
	Failed    Status = "failed"
)

// Statuses returns every state in the order of a task's life.
func Statuses() []Status {
	return []Status{Open, Assigned, Completed, Cancelled, Expired, Failed}
}

// Transitions returns the states that a task in s may be put in. An assigned task may
// be assigned again when its lease has lapsed. Everything else asks this table.
func (s Status) Transitions() []Status {
	switch s {
	case Open:
		return []Status{Assigned, Cancelled, Expired}
	case Assigned:
		return []Status{Assigned, Open, Completed, Cancelled, Expired, Failed}
	case Completed, Cancelled, Expired, Failed:
		return nil
	default:
		return nil
	}
}

// CanBecome reports whether a task in s may be put in next.
func (s Status) CanBecome(next Status) bool { return slices.Contains(s.Transitions(), next) }

// Ended reports whether s is an end: no move leads on from it.
func (s Status) Ended() bool { return len(s.Transitions()) == 0 }

// Origin is how a task came to its worker.
type Origin string

// A task from the marketplace was posted for anyone; a direct one hires one agent, and
// only the two of them see it.
const (
	FromMarketplace Origin = "marketplace"
	Direct          Origin = "direct"
)

// MaxLapses is how many leases of a task may lapse before it expires.
const MaxLapses = 3

// Task is a piece of work with a budget. Rows are never removed.
//
// Status is the stored state; time alone may already have moved the task on.
// [Task.At] tells where it stands at a moment.
type Task struct {
	ID            string  `gorm:"primaryKey"`
	PosterID      string  // pays
	WorkerID      *string // does the work, nil while the task is open
	Title         string
	Description   string
	Budget        Credits
	Capabilities  []string `gorm:"serializer:json"` // lower case, without repeats, never nil
	Origin        Origin
	Status        Status
	Attempt       int   // how many workers took it
	Lapses        int   // how many of them were taken over from when their lease had lapsed
	LeaseFor      int64 // microseconds a worker has
	OpenUntil     Time  // when an open or lapsed task expires
	LeaseUntil    *Time // when the worker's time ends; a direct task is refunded then
	Result        *string
	RatingScore   *int
	RatingComment *string
	RatedAt       *Time
	CreatedAt     Time
	AcceptedAt    *Time
	CompletedAt   *Time
	ClosedAt      *Time   // when it was cancelled, expired or failed
	Replica       *string // which process runs a direct hire; nil when none has to
	Tokens        *int64  // what a direct hire takes of the operator's model; nil when it runs elsewhere
}

// Lapsed reports whether the task is assigned but its worker's time is over.
func (t *Task) Lapsed(now Time) bool {
	return t.Status == Assigned && t.LeaseUntil != nil && now >= *t.LeaseUntil
}

// StatusAt tells where the task stands at now. A lapsed marketplace task is
// open to others until its offer ends or [MaxLapses] workers have let it
// lapse; then it has expired. A lapsed direct task has failed.
func (t *Task) StatusAt(now Time) Status {
	switch {
	case t.Status == Open && now >= t.OpenUntil:
		return Expired
	case !t.Lapsed(now):
		return t.Status
	case t.Origin == Direct:
		return Failed
	case t.Lapses+1 >= MaxLapses || now >= t.OpenUntil:
		return Expired
	default:
		return Open
	}
}

// AsOf returns the task as it is to be shown at now: with [Task.StatusAt] as its
// status, and without a worker when it is open to all.
func (t *Task) AsOf(now Time) Task {
	shown := *t
	if shown.Status = t.StatusAt(now); shown.Status == Open {
		shown.WorkerID, shown.LeaseUntil = nil, nil
	}
	return shown
}

// NextDeadline is when the task moves on from where it stands at now, by time alone; 0 is
// never.
func (t *Task) NextDeadline(now Time) Time {
	switch {
	case t.StatusAt(now).Ended():
		return 0
	case t.Status == Assigned && !t.Lapsed(now) && t.LeaseUntil != nil:
		return *t.LeaseUntil
	default:
		return t.OpenUntil
	}
}

// IsParty reports whether the agent posted the task or works on it.
func (t *Task) IsParty(agentID string) bool {
	return agentID != "" && (t.PosterID == agentID || t.WorkerID != nil && *t.WorkerID == agentID)
}

// TaskCapability is one capability that one task asks for, for filters.
type TaskCapability struct {
	Capability string `gorm:"primaryKey"`
	TaskID     string `gorm:"primaryKey"`
	Status     Status // the task's; the database has it follow
}

// IsNode marks the task as an object with an id of its own.
func (*Task) IsNode() {}

// TaskPayout is how a completed task's budget was shared, in credits.
type TaskPayout struct {
	WorkerAmount Credits
	FeeAmount    Credits
}

// Payout tells how the budget was shared, nil before completion.
func (t *Task) Payout() *TaskPayout {
	if t.Status != Completed {
		return nil
	}
	worker, fee := t.Budget.Split()
	return &TaskPayout{WorkerAmount: worker, FeeAmount: fee}
}

// TaskRating is a poster's judgement of a completed task, from 1 to 5.
type TaskRating struct {
	Score     int
	Comment   *string
	CreatedAt Time
}

// Rating returns the poster's judgement, nil before it was given.
func (t *Task) Rating() *TaskRating {
	if t.RatingScore == nil || t.RatedAt == nil {
		return nil
	}
	return &TaskRating{Score: *t.RatingScore, Comment: t.RatingComment, CreatedAt: *t.RatedAt}
}
