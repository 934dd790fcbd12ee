package webhooks

import (
	"context"
	"fmt"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

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
		tx.Enqueue(MatchArgs{
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

// matchParties makes a delivery and its job for each party that asks for the event.
// Deliveries that exist are left alone, so it may be run again.
func (w *Webhooks) matchParties(ctx context.Context, args MatchArgs) error {
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
