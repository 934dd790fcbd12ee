package webhooks

import (
	"context"
	"fmt"

	"github.com/riverqueue/river"

	"agentmarket.space/server/database"
	"agentmarket.space/server/models"
)

// Deliveries returns up to first of the agent's deliveries, newest first: all of
// them or those in one of the given states, from the start or those that come
// after the delivery afterID.
func (w *Webhooks) Deliveries(ctx context.Context, agentID string, status []models.DeliveryStatus, first int, afterID string) ([]models.Delivery, error) {
	query := w.db.Read(ctx).Where("agent_id = ?", agentID)
	if len(status) > 0 {
		query = query.Where("status IN ?", status)
	}
	if afterID != "" {
		query = query.Where("id < ?", afterID)
	}
	var page []models.Delivery
	if err := query.Order("id DESC").Limit(first).Find(&page).Error; err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	return page, nil
}

// Delivery returns one of the agent's deliveries, NOT_FOUND for an unknown one
// and for another's.
func (w *Webhooks) Delivery(ctx context.Context, agentID, id string) (*models.Delivery, error) {
	var delivery models.Delivery
	err := w.db.Read(ctx).Where("id = ? AND agent_id = ?", id, agentID).Take(&delivery).Error
	if err != nil {
		return nil, database.NotFound(err, "delivery", id)
	}
	return &delivery, nil
}

// Attempts returns the tries of deliveries, delivery by delivery, of each the
// first one first.
func (w *Webhooks) Attempts(ctx context.Context, deliveryIDs ...string) ([]models.Attempt, error) {
	var attempts []models.Attempt
	if err := w.db.Read(ctx).Where("delivery_id IN ?", deliveryIDs).Order("delivery_id, number").Find(&attempts).Error; err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	return attempts, nil
}

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
	hook, err := hookOf(tx.DB, agentID)
	switch {
	case models.CodeOf(err) == models.NotFound:
		return d, models.Errorf(models.Conflict, "no webhook is set: there is nowhere to send the delivery to")
	case err != nil:
		return d, err
	case hook.Status == models.WebhookSuspended:
		return d, models.Errorf(models.Conflict, "the webhook is suspended: set it again to resume")
	}
	d.Status, d.TriesLeft, d.NextAttemptAt = models.DeliveryPending, w.tries(), new(w.stamp())
	if err = tx.Model(&d).Select("status", "tries_left", "next_attempt_at").Updates(&d).Error; err != nil {
		return d, fmt.Errorf("redeliver %s: %w", deliveryID, err)
	}
	tx.Enqueue(DeliverArgs{DeliveryID: d.ID, Attempt: d.Attempts + 1}, &river.InsertOpts{Queue: firstQueue})
	return d, nil
}
