package webhooks

import (
	"cmp"
	"context"
	"fmt"

	"github.com/riverqueue/river"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// PartiesArgs is the job that tells those whom a task is about of an event that
// they asked for. It has a kind of its own: a program of before there were such
// events leaves it to others, and would take it for a posted task otherwise.
type PartiesArgs struct {
	EventID  int64               `json:"event_id"`
	TaskID   string              `json:"task_id"`
	Event    models.WebhookEvent `json:"event"`
	PosterID string              `json:"poster_id"`
	WorkerID *string             `json:"worker_id"`
	At       models.Time         `json:"at"`
	Trace    string              `json:"trace,omitempty"` // of who asked for it
}

// Kind names the job.
func (PartiesArgs) Kind() string { return "webhook_parties" }

// InsertOpts says where the job is queued.
func (PartiesArgs) InsertOpts() river.InsertOpts { return MatchArgs{}.InsertOpts() }

// notifyParties has an event told with the commit when its poster or its worker asked
// for it. The event's id is known once the store was asked who did, not before.
func (w *Webhooks) notifyParties(tx *database.Tx, event *models.Event) error {
	if quiet, err := w.hasNoSubscribers(tx); quiet || err != nil {
		return err
	}
	name := event.Kind.WebhookEvent()
	var wanted bool
	// One after the other: for an IN SQLite builds a table of the two first.
	err := tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM webhooks WHERE agent_id = ? AND events LIKE ?)
		OR EXISTS (SELECT 1 FROM webhooks WHERE agent_id = ? AND events LIKE ?)`,
		[]any{*event.PosterID, eventPattern(name), workerOrPoster(event), eventPattern(name)}, &wanted)
	if err != nil {
		return fmt.Errorf("look for who asked for %s: %w", name, err)
	}
	if wanted {
		tx.Enqueue(PartiesArgs{
			EventID: event.ID, TaskID: *event.TaskID, Event: name, PosterID: *event.PosterID, WorkerID: event.WorkerID, At: event.CreatedAt,
			Trace: tx.TraceParent(),
		}, nil)
	}
	return nil
}

// hasNoSubscribers reports whether nobody has asked for any event. The one process that writes
// to SQLite remembers that, so that no verb pays for a look in vain; changes run one
// after another there, and none is missed. Replicas have to look.
func (w *Webhooks) hasNoSubscribers(tx *database.Tx) (bool, error) {
	if w.db.IsShared() || w.hasEventSubscribers.Load() {
		return false, nil
	}
	if w.eventSubscribersChecked.Load() {
		return true, nil
	}
	var asked bool
	if err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM webhooks WHERE events <> '[]')", nil, &asked); err != nil {
		return false, fmt.Errorf("look for who asked for events: %w", err)
	}
	w.hasEventSubscribers.Store(asked)
	w.eventSubscribersChecked.Store(true)
	return !asked, nil
}

// workerOrPoster is the worker that an event names, its poster when there is none.
func workerOrPoster(event *models.Event) string {
	if event.WorkerID == nil {
		return *event.PosterID
	}
	return *event.WorkerID
}

// eventPattern is how an event stands among those that were asked for.
func eventPattern(name models.WebhookEvent) string { return `%"` + string(name) + `"%` }

// partyMatcher works PartiesArgs.
type partyMatcher struct {
	river.WorkerDefaults[PartiesArgs]
	webhooks *Webhooks
}

// Work makes the deliveries of one event.
func (m *partyMatcher) Work(ctx context.Context, job *river.Job[PartiesArgs]) error {
	ctx, span := m.webhooks.tracer.StartChild(ctx, spanMatch, job.Args.Trace)
	defer span.End()
	return m.webhooks.matchParties(ctx, job.Args)
}

// matchParties makes a delivery and its job for each party that asks for the event.
// Deliveries that exist are left alone, so it may be run again.
func (w *Webhooks) matchParties(ctx context.Context, args PartiesArgs) error {
	parties := []string{args.PosterID}
	if args.WorkerID != nil {
		parties = append(parties, *args.WorkerID)
	}
	var told []recipient
	err := w.db.Read(ctx).Model(&models.Webhook{}).Select("agent_id", "status", "failing_since").
		Where("agent_id IN ? AND events LIKE ?", parties, eventPattern(args.Event)).Order("agent_id").Find(&told).Error
	if err != nil {
		return fmt.Errorf("find who asked for event %d: %w", args.EventID, err)
	}
	if len(told) == 0 {
		return nil
	}
	delivery := models.Delivery{EventID: args.EventID, TaskID: args.TaskID, Event: args.Event, WorkerID: args.WorkerID, CreatedAt: args.At}
	if err = w.db.Write(ctx, func(tx *database.Tx) error { return w.createDeliveries(tx, delivery, told) }); err != nil {
		return fmt.Errorf("make deliveries of event %d: %w", args.EventID, err)
	}
	return nil
}

// TellArgs is DeliverArgs for an event that was asked for, of a kind of its own for
// the same reason as [PartiesArgs].
type TellArgs struct{ DeliverArgs }

// Kind names the job.
func (TellArgs) Kind() string { return "webhook_tell" }

// teller works TellArgs.
type teller struct {
	river.WorkerDefaults[TellArgs]
	webhooks *Webhooks
}

// Work makes the try when its time has come and its endpoint has room.
func (t *teller) Work(ctx context.Context, job *river.Job[TellArgs]) error {
	return t.webhooks.deliver(ctx, job.Args.DeliverArgs, job.Queue)
}

// enqueueNextAttempt has the next try of a delivery made with the commit.
func enqueueNextAttempt(tx *database.Tx, d *models.Delivery, opts river.InsertOpts) {
	enqueueAttempt(tx, d, DeliverArgs{DeliveryID: d.ID, Attempt: d.Attempts + 1}, opts)
}

// enqueueAttempt is enqueue with arguments that there are. They keep their trace where the
// commit is part of none.
func enqueueAttempt(tx *database.Tx, d *models.Delivery, args DeliverArgs, opts river.InsertOpts) {
	args.Trace = cmp.Or(tx.TraceParent(), args.Trace)
	if d.Event == models.HookPosted {
		tx.Enqueue(args, &opts)
		return
	}
	tx.Enqueue(TellArgs{args}, &opts)
}
