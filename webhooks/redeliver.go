package webhooks

import (
	"context"
	"fmt"

	"github.com/riverqueue/river"

	"agentmarket.space/server/database"
	"agentmarket.space/server/models"
)

// Redeliver sends one of the agent's deliveries again at once, whatever became
// of it, with the whole schedule of retries before it. An unknown delivery, one past
// its time or another's is NOT_FOUND; without a webhook, or while it is suspended, CONFLICT.
func (w *Webhooks) Redeliver(tx *database.Tx, agentID, deliveryID string) (models.Delivery, error) {
	var d models.Delivery
	if err := tx.Locked().Where("id = ? AND agent_id = ?", deliveryID, agentID).Take(&d).Error; err != nil {
		return d, database.NotFound(err, "delivery", deliveryID)
	}
	if w.keep > 0 && d.CreatedAt.Add(w.keep) <= w.stamp() { // else it could be kept, and the log with it, for ever
		return d, models.Errorf(models.NotFound, "delivery %q is too old to be sent again", deliveryID)
	}
	if err := sendable(tx, agentID); err != nil {
		return d, err
	}
	d.Status, d.TriesLeft, d.NextAttemptAt = models.DeliveryPending, w.tries(), new(w.stamp())
	if err := tx.Model(&d).Select("status", "tries_left", "next_attempt_at").Updates(&d).Error; err != nil {
		return d, fmt.Errorf("redeliver %s: %w", deliveryID, err)
	}
	enqueue(tx, &d, river.InsertOpts{Queue: firstQueue, Priority: fresh})
	return d, nil
}

// Failed returns the ids of a page of the agent's deliveries that were given up,
// oldest first, and whether more follow. Those that are past their time are not
// among them.
func (w *Webhooks) Failed(ctx context.Context, agentID string, in models.FailedQuery) (ids []string, more bool, err error) {
	since := in.Since
	if w.keep > 0 {
		since = max(since, w.stamp().Add(-w.keep)+1)
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
	err := tx.Locked().Select("id", "attempts", "event").
		Where("id IN ? AND agent_id = ? AND status = ?", ids, agentID, models.DeliveryFailed).Order("id").Find(&failed).Error
	if err != nil {
		return 0, fmt.Errorf("lock failed deliveries: %w", err)
	}
	if err := sendable(tx, agentID); err != nil || len(failed) == 0 {
		return 0, err
	}
	again := make([]string, len(failed))
	for i := range failed {
		again[i] = failed[i].ID
		enqueue(tx, &failed[i], river.InsertOpts{Queue: laterQueue, Priority: old})
	}
	err = tx.Model(&models.Delivery{}).Where("id IN ?", again).
		Updates(map[string]any{"status": models.DeliveryPending, "tries_left": w.tries(), "next_attempt_at": w.stamp()}).Error
	if err != nil {
		return 0, fmt.Errorf("redeliver %d: %w", len(again), err)
	}
	return len(again), nil
}

// sendable refuses with CONFLICT when there is nowhere to send deliveries to.
func sendable(tx *database.Tx, agentID string) error {
	hook, err := hookOf(tx.DB, agentID)
	switch {
	case models.CodeOf(err) == models.NotFound:
		return models.Errorf(models.Conflict, "no webhook is set: there is nowhere to send to")
	case err != nil:
		return err
	case hook.Status == models.WebhookSuspended:
		return models.Errorf(models.Conflict, "the webhook is suspended: resume it first")
	}
	return nil
}
