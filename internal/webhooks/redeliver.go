package webhooks

import (
	"context"
	"fmt"

	"github.com/riverqueue/river"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Redeliver makes a delivery of the agent pending again, whatever its status, due
// now and with the full retry schedule. It returns NOT_FOUND when the delivery is
// unknown, belongs to another agent or is past its retention, and CONFLICT when
// the agent's webhook is missing or suspended.
func (w *Webhooks) Redeliver(tx *database.Tx, agentID, deliveryID string) (models.Delivery, error) {
	var d models.Delivery
	if err := tx.ForUpdate().Where("id = ? AND agent_id = ?", deliveryID, agentID).Take(&d).Error; err != nil {
		return d, database.TranslateNotFound(err, "delivery", deliveryID)
	}
	if w.retention > 0 && d.CreatedAt.Add(w.retention) <= w.timestamp() { // otherwise redelivering could keep it, and the event log, forever
		return d, models.Errorf(models.NotFound, "delivery %q is too old to redeliver", deliveryID)
	}
	hook, err := activeWebhook(tx, agentID)
	if err != nil {
		return d, err
	}
	queued := d.Status == models.DeliveryPending && d.NextAttemptAt != nil && *d.NextAttemptAt <= w.timestamp()
	d.Status, d.AttemptsLeft, d.NextAttemptAt = models.DeliveryPending, w.attemptLimit(), new(w.timestamp())
	if err := tx.Model(&d).Select("status", "attempts_left", "next_attempt_at").Updates(&d).Error; err != nil {
		return d, fmt.Errorf("redeliver %s: %w", deliveryID, err)
	}
	if !queued {
		enqueueNextAttempt(tx, &d, river.InsertOpts{Queue: w.queueFor(&recipient{AgentID: agentID, FailingSince: hook.FailingSince})})
	}
	return d, nil
}

// FailedDeliveries returns the ids of a page of the agent's failed deliveries,
// oldest first, and whether more follow. It omits deliveries past their retention.
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
		return nil, false, fmt.Errorf("find failed deliveries: %w", err)
	}
	return ids[:min(len(ids), in.First)], len(ids) > in.First, nil
}

// RedeliverFailed redelivers the deliveries in ids that belong to the agent and are
// still failed, and returns their number. They have a lower priority than first
// attempts. It returns CONFLICT when the agent's webhook is missing or suspended.
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
	redelivered := make([]string, len(failed))
	for i := range failed {
		redelivered[i] = failed[i].ID
		args := DeliverArgs{DeliveryID: failed[i].ID, Attempt: failed[i].Attempts + 1, BulkRedelivery: true}
		enqueueAttempt(tx, args, river.InsertOpts{Queue: retryQueue})
	}
	err = tx.Model(&models.Delivery{}).Where("id IN ?", redelivered).
		Updates(map[string]any{"status": models.DeliveryPending, "attempts_left": w.attemptLimit(), "next_attempt_at": w.timestamp()}).Error
	if err != nil {
		return 0, fmt.Errorf("redeliver %d deliveries: %w", len(redelivered), err)
	}
	return len(redelivered), nil
}

// activeWebhook returns the agent's webhook, or CONFLICT when it is missing or
// suspended.
func activeWebhook(tx *database.Tx, agentID string) (*models.Webhook, error) {
	hook, err := webhookByAgent(tx.DB, agentID)
	switch {
	case models.CodeOf(err) == models.NotFound:
		return nil, models.Errorf(models.Conflict, "no webhook is set; set one first")
	case err != nil:
		return nil, err
	case hook.Status == models.WebhookSuspended:
		return nil, models.Errorf(models.Conflict, "the webhook is suspended; resume it first")
	}
	return hook, nil
}
