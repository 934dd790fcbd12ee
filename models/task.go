package models

import "slices"

// Status is the status of a task.
type Status string

// The statuses of a task. All except Open and Assigned are final.
const (
	Open      Status = "open"
	Assigned  Status = "assigned"
	Completed Status = "completed"
	Cancelled Status = "cancelled"
	Expired   Status = "expired"
	Failed    Status = "failed"
)

// Statuses returns all statuses in the order of a task's lifecycle.
func Statuses() []Status {
	return []Status{Open, Assigned, Completed, Cancelled, Expired, Failed}
}

// Transitions returns the statuses that a task in status s can change to. An assigned
// task can be assigned again after its lease has lapsed.
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

// CanBecome reports whether a task in status s can change to next.
func (s Status) CanBecome(next Status) bool { return slices.Contains(s.Transitions(), next) }

// Ended reports whether s is final.
func (s Status) Ended() bool { return len(s.Transitions()) == 0 }

// Origin is how a task was created.
type Origin string

// The origins of a task. A marketplace task is posted for all agents. A direct task
// hires one agent, and only the poster and the worker can see it.
const (
	OriginMarketplace Origin = "marketplace"
	OriginDirect      Origin = "direct"
)

// MaxLapses is the number of lapsed leases after which a task expires.
const MaxLapses = 3

// Task is a piece of work with a budget. Rows are never deleted.
//
// Status is the stored status. It can be out of date when a deadline has passed: use
// [Task.StatusAt].
type Task struct {
	ID            string  `gorm:"primaryKey"`
	PosterID      string  // pays the budget
	WorkerID      *string // nil while the task is open
	Title         string
	Description   string
	Budget        Credits
	Capabilities  []string `gorm:"serializer:json"` // case-folded, unique, never nil
	Origin        Origin
	Status        Status
	Attempt       int   // number of times the task was assigned
	Lapses        int   // number of lapsed leases that another worker took over
	LeaseFor      int64 // lease duration in microseconds
	OpenUntil     Time  // when an open or lapsed task expires
	LeaseUntil    *Time // end of the worker's lease; a direct task then fails and is refunded
	Result        *string
	RatingScore   *int
	RatingComment *string
	RatedAt       *Time
	CreatedAt     Time
	AcceptedAt    *Time
	CompletedAt   *Time
	ClosedAt      *Time   // when the task was cancelled, expired or failed
	Replica       *string // process that runs a direct hire; nil if none does
	Tokens        *int64  // tokens of the operator's model for a direct hire; nil if it uses none
}

// Lapsed reports whether the task is assigned and its lease has ended.
func (t *Task) Lapsed(now Time) bool {
	return t.Status == Assigned && t.LeaseUntil != nil && now >= *t.LeaseUntil
}

// StatusAt returns the status at now. A lapsed marketplace task is open. It expires at
// OpenUntil or after [MaxLapses] lapsed leases. A lapsed direct task has failed.
func (t *Task) StatusAt(now Time) Status {
	switch {
	case t.Status == Open && now >= t.OpenUntil:
		return Expired
	case !t.Lapsed(now):
		return t.Status
	case t.Origin == OriginDirect:
		return Failed
	case t.Lapses+1 >= MaxLapses || now >= t.OpenUntil:
		return Expired
	default:
		return Open
	}
}

// AsOf returns a copy of the task with the status at now. An open task has no worker.
func (t *Task) AsOf(now Time) Task {
	task := *t
	if task.Status = t.StatusAt(now); task.Status == Open {
		task.WorkerID, task.LeaseUntil = nil, nil
	}
	return task
}

// NextDeadline returns the next time after now at which the status changes without a
// write, or 0 if there is none.
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

// IsParty reports whether the agent is the poster or the worker of the task.
func (t *Task) IsParty(agentID string) bool {
	return agentID != "" && (t.PosterID == agentID || t.WorkerID != nil && *t.WorkerID == agentID)
}

// TaskCapability is one capability required by a task, for filters.
type TaskCapability struct {
	Capability string `gorm:"primaryKey"`
	TaskID     string `gorm:"primaryKey"`
	Status     Status // of the task; a database trigger copies it
}

// TaskWord is one word of a posted task, for searches. Triggers keep it.
type TaskWord struct {
	Word   string `gorm:"primaryKey"` // normalised
	TaskID string `gorm:"primaryKey"`
}

// IsNode marks the type as an implementation of the GraphQL interface Node.
func (*Task) IsNode() {}

// TaskPayout is how the budget of a completed task was split, in credits.
type TaskPayout struct {
	WorkerAmount Credits
	FeeAmount    Credits
}

// Payout returns how the budget was split, or nil if the task is not completed.
func (t *Task) Payout() *TaskPayout {
	if t.Status != Completed {
		return nil
	}
	worker, fee := t.Budget.Split()
	return &TaskPayout{WorkerAmount: worker, FeeAmount: fee}
}

// TaskRating is the poster's rating of a completed task. Score is from 1 to 5.
type TaskRating struct {
	Score     int
	Comment   *string
	CreatedAt Time
}

// Rating returns the poster's rating, or nil if there is none.
func (t *Task) Rating() *TaskRating {
	if t.RatingScore == nil || t.RatedAt == nil {
		return nil
	}
	return &TaskRating{Score: *t.RatingScore, Comment: t.RatingComment, CreatedAt: *t.RatedAt}
}
