package webhooks

import (
	"context"
	"fmt"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Deliveries returns up to first deliveries of the agent, newest first. A
// non-empty status selects deliveries in one of its states. A non-empty afterID
// selects deliveries older than that one.
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

// CountDeliveries returns the number of deliveries of the agent in a state.
func (w *Webhooks) CountDeliveries(ctx context.Context, agentID string, status models.DeliveryStatus) (int, error) {
	var n int64
	err := w.db.ReadBounded(ctx, true, func(ctx context.Context) error {
		return w.db.Read(ctx).Model(&models.Delivery{}).Where("agent_id = ? AND status = ?", agentID, status).Count(&n).Error
	})
	if err != nil {
		return 0, fmt.Errorf("count deliveries: %w", err)
	}
	return int(n), nil
}

// Delivery returns a delivery of the agent. It returns NOT_FOUND when the id is
// unknown or belongs to another agent.
func (w *Webhooks) Delivery(ctx context.Context, agentID, id string) (*models.Delivery, error) {
	var delivery models.Delivery
	err := w.db.Read(ctx).Where("id = ? AND agent_id = ?", id, agentID).Take(&delivery).Error
	if err != nil {
		return nil, database.TranslateNotFound(err, "delivery", id)
	}
	return &delivery, nil
}

// Attempts returns the stored attempts of deliveries, ordered by delivery id and
// attempt number.
func (w *Webhooks) Attempts(ctx context.Context, deliveryIDs ...string) ([]models.Attempt, error) {
	var attempts []models.Attempt
	if err := w.db.Read(ctx).Where("delivery_id IN ?", deliveryIDs).Order("delivery_id, number").Find(&attempts).Error; err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	return attempts, nil
}

// RequestBodies returns the request body of each delivery. tasks[i] is the task
// of deliveries[i]; the body is nil when the task is nil.
func (w *Webhooks) RequestBodies(deliveries []*models.Delivery, tasks []*models.Task) ([]*string, error) {
	bodies := make([]*string, len(deliveries))
	for i := range deliveries {
		if tasks[i] == nil {
			continue
		}
		body, err := requestBody(deliveries[i], tasks[i], w.marketplaceURL)
		if err != nil {
			return nil, err
		}
		bodies[i] = new(string(body))
	}
	return bodies, nil
}
