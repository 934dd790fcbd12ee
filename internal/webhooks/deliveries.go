package webhooks

import (
	"context"
	"fmt"

	"agentmarket.space/server/internal/database"
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

// CountDeliveries returns how many of the agent's deliveries are in a state.
func (w *Webhooks) CountDeliveries(ctx context.Context, agentID string, status models.DeliveryStatus) (int, error) {
	var n int64
	err := w.db.Read(ctx).Model(&models.Delivery{}).Where("agent_id = ? AND status = ?", agentID, status).Count(&n).Error
	if err != nil {
		return 0, fmt.Errorf("count deliveries: %w", err)
	}
	return int(n), nil
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

// RequestBodies returns what is sent of each delivery, nil where its task is gone. The tasks
// are those of the deliveries, in their order.
func (w *Webhooks) RequestBodies(deliveries []*models.Delivery, tasks []*models.Task) ([]*string, error) {
	bodies := make([]*string, len(deliveries))
	for i := range deliveries {
		if tasks[i] == nil {
			continue
		}
		content, err := requestBody(deliveries[i], tasks[i], w.marketplaceURL)
		if err != nil {
			return nil, err
		}
		bodies[i] = new(string(content))
	}
	return bodies, nil
}
