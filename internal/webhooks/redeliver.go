package webhooks

import (
	"context"
	"fmt"

	"github.com/riverqueue/river"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Redeliver sends one of the agent's deliveries again at once, whatever became
// of it, with the whole schedule of retries before it. An unknown delivery, one past
// its time or another's is NOT_FOUND; without a webhook, or while it is suspended, CONFLICT.
func (w *Webhooks) Redeliver(tx *database.Tx, agentID, deliveryID string) (models.Delivery, error) {
	var d models.Delivery
	if err := tx.ForUpdate().Where("id = ? AND agent_id = ?", deliveryID, agentID).Take(&d).Error; err != nil {
		return d, database.NotFound(err, "delivery", deliveryID)
	}
	if w.retention > 0 && d.CreatedAt.Add(w.retention) <= w.timestamp() { // else it could be kept, and the log with it, for ever
		return d, models.Errorf(models.NotFound, "delivery %q is too old to be sent again", deliveryID)
	}
	hook, err := activeWebhook(tx, agentID)
	if err != nil {
		return d, err
	}
	waits := d.Status == models.DeliveryPending && d.NextAttemptAt != nil && *d.NextAttemptAt <= w.timestamp()
	d.Status, d.AttemptsLeft, d.NextAttemptAt = models.DeliveryPending, w.attemptLimit(), new(w.timestamp())
	if err := tx.Model(&d).Select("status", "tries_left", "next_attempt_at").Updates(&d).Error; err != nil {
		return d, fmt.Errorf("redeliver %s: %w", deliveryID, err)
	}
	if !waits { // else its job is there
		enqueueNextAttempt(tx, &d, river.InsertOpts{Queue: w.queueFor(&recipient{AgentID: agentID, FailingSince: hook.FailingSince})})
	}
	return d, nil
}

// FailedDeliveries returns the ids of a page of the agent's deliveries that were given up,
// oldest first, and whether more follow. Those that are past their time are not
// among them.
func (w *Webhooks) FailedDeliveries(ctx context.Context, agentID string, in models.FailedDeliveryQuery) (ids []string, more bool, err error) {
	since := in.Since
	if w.retention > 0 {
		since = max(since, w.timestamp().Add(-w.retention)+1)
	}
	query := w.db.Read(ctx).Model(&models.Delivery{}).
		Where("agent_id = ? AND status = ? AND id > ? AND created_at >= ?", agentID, models.DeliveryFailed, in.After, since)
	if in.Until != nil {
		query = query.Where("created_at < ?", *in.Until)
	}
	err = query.Order("id").Limit(in.First+1).Pluck("id", &ids).Error
	if err != nil {
		return nil, false, fmt.Errorf("look for failed deliveries: %w", err)
	}
	return ids[:min(len(ids), in.First)], len(ids) > in.First, nil
}

// RedeliverFailed has those of the agent's deliveries sent again that are still
// given up, as Redeliver does, and returns how many they are. They wait behind
// first tries, however many they are. CONFLICT without a webhook and while it is
// suspended.
func (w *Webhooks) RedeliverFailed(tx *database.Tx, agentID string, ids []string) (int, error) {
	var failed []models.Delivery
	err := tx.ForUpdate().Select("id", "attempts").
		Where("id IN ? AND agent_id = ? AND status = ?", ids, agentID, models.DeliveryFailed).Order("id").Find(&failed).Error
	if err != nil {
		return 0, fmt.Errorf("lock failed deliveries: %w", err)
	}
	if _, err := activeWebhook(tx, agentID); err != nil || len(failed) == 0 {
		return 0, err
	}
	sent := make([]string, len(failed))
	for i := range failed {
		sent[i] = failed[i].ID
		again := DeliverArgs{DeliveryID: failed[i].ID, Attempt: failed[i].Attempts + 1, BulkRedelivery: true}
		enqueueAttempt(tx, again, river.InsertOpts{Queue: retryQueue})
	}
	err = tx.Model(&models.Delivery{}).Where("id IN ?", sent).
		Updates(map[string]any{"status": models.DeliveryPending, "tries_left": w.attemptLimit(), "next_attempt_at": w.timestamp()}).Error
	if err != nil {
		return 0, fmt.Errorf("redeliver %d: %w", len(sent), err)
	}
	return len(sent), nil
}

// activeWebhook returns where deliveries are sent to, or CONFLICT when there is no such
// place.
func activeWebhook(tx *database.Tx, agentID string) (*models.Webhook, error) {
	hook, err := webhookByAgent(tx.DB, agentID)
	switch {
	case models.CodeOf(err) == models.NotFound:
		return nil, models.Errorf(models.Conflict, "no webhook is set: there is nowhere to send to")
	case err != nil:
		return nil, err
	case hook.Status == models.WebhookSuspended:
		return nil, models.Errorf(models.Conflict, "the webhook is suspended: resume it first")
	}
	return hook, nil
}
