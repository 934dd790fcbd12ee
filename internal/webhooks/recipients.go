package webhooks

import (
	"context"
	"fmt"
	"sync/atomic"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// notifyParties enqueues a job for an event of a task when the poster or the
// worker of the task subscribes to it.
func (w *Webhooks) notifyParties(tx *database.Tx, event *models.Event) error {
	if none, err := w.hasNoSubscribers(tx); none || err != nil {
		return err
	}
	name := event.Kind.WebhookEvent()
	var subscribed bool
	// Two EXISTS instead of one IN: for IN, SQLite builds a temporary table first.
	err := tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM webhooks WHERE agent_id = ? AND events LIKE ?)
		OR EXISTS (SELECT 1 FROM webhooks WHERE agent_id = ? AND events LIKE ?)`,
		[]any{*event.PosterID, eventPattern(name), workerOrPoster(event), eventPattern(name)}, &subscribed)
	if err != nil {
		return fmt.Errorf("find subscribers of %s: %w", name, err)
	}
	if subscribed { // event.ID is set by now: the query above has flushed the statement that inserts the event
		tx.Enqueue(MatchArgs{
			EventID: event.ID, TaskID: *event.TaskID, Event: name, PosterID: *event.PosterID, WorkerID: event.WorkerID, At: event.CreatedAt,
			NoMerge: true, Trace: tx.TraceParent(), // each job commits deliveries: separate jobs share group commits
		}, nil)
	}
	return nil
}

// hasNoSubscribers reports whether no webhook subscribes to events of tasks. It
// returns false when it does not know. Only SQLite has a single process that
// writes, so only there is the result cached: it saves a query per transition.
func (w *Webhooks) hasNoSubscribers(tx *database.Tx) (bool, error) {
	if w.db.IsShared() {
		return false, nil
	}
	return w.subscribers.hasNone(func() (exist bool, err error) {
		if err = tx.QueryRow("SELECT EXISTS (SELECT 1 FROM webhooks WHERE events <> '[]')", nil, &exist); err != nil {
			return false, fmt.Errorf("find subscribers of events: %w", err)
		}
		return exist, nil
	})
}

// subscriberCache caches whether any webhook subscribes to events of tasks. The
// zero value is empty. Callers hold the only write transaction, so a lookup
// cannot miss a concurrent subscription.
type subscriberCache struct{ state atomic.Int32 }

const (
	subscribersUnknown int32 = iota
	subscribersNone
	subscribersExist
)

// hasNone reports whether no webhook subscribes to events. It calls lookup when the
// cache is empty.
func (c *subscriberCache) hasNone(lookup func() (exist bool, err error)) (bool, error) {
	if c.state.Load() == subscribersUnknown {
		exist, err := lookup()
		if err != nil {
			return false, err
		}
		c.set(exist)
	}
	return c.state.Load() == subscribersNone, nil
}

func (c *subscriberCache) set(exist bool) {
	if exist {
		c.state.Store(subscribersExist)
	} else {
		c.state.Store(subscribersNone)
	}
}

// workerOrPoster returns the worker of an event, or its poster when the event has
// no worker.
func workerOrPoster(event *models.Event) string {
	if event.WorkerID == nil {
		return *event.PosterID
	}
	return *event.WorkerID
}

// eventPattern returns the LIKE pattern that finds an event in the JSON list of
// subscribed events.
func eventPattern(name models.WebhookEvent) string { return `%"` + string(name) + `"%` }

// matchParties creates a delivery and its job for each party of the task that
// subscribes to the event. It is idempotent.
func (w *Webhooks) matchParties(ctx context.Context, args MatchArgs) error {
	parties := []string{args.PosterID}
	if args.WorkerID != nil {
		parties = append(parties, *args.WorkerID)
	}
	var recipients []recipient
	err := w.db.Read(ctx).Model(&models.Webhook{}).Select("agent_id", "status", "failing_since").
		Where("agent_id IN ? AND events LIKE ?", parties, eventPattern(args.Event)).Order("agent_id").Find(&recipients).Error
	if err != nil {
		return fmt.Errorf("find recipients of event %d: %w", args.EventID, err)
	}
	if len(recipients) == 0 {
		return nil
	}
	delivery := models.Delivery{EventID: args.EventID, TaskID: args.TaskID, Event: args.Event, WorkerID: args.WorkerID, CreatedAt: args.At}
	if err = w.db.Write(ctx, func(tx *database.Tx) error { return w.createDeliveries(tx, delivery, recipients) }); err != nil {
		return fmt.Errorf("create deliveries of event %d: %w", args.EventID, err)
	}
	return nil
}
