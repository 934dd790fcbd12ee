package webhooks

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Subscribe creates or replaces the agent's webhook. url must have passed
// outbound.Client.CheckURL. events are the subscribed events in addition to
// task.posted; nil keeps the current ones. A suspended webhook becomes active. The
// secret is returned only for a new webhook; it is created if the agent has none.
func (w *Webhooks) Subscribe(tx *database.Tx, agentID, url string, events []models.WebhookEvent) (models.Webhook, string, error) {
	hook := models.Webhook{AgentID: agentID, URL: url, Status: models.WebhookActive, Events: events, UpdatedAt: w.timestamp()}
	if len(events) > 0 {
		w.subscribers.set(true) // after a rollback this costs queries, not correctness
	}
	before, err := webhookByAgent(tx.ForUpdate(), agentID)
	switch {
	case models.CodeOf(err) == models.NotFound:
		return w.createWebhook(tx, hook)
	case err != nil:
		return models.Webhook{}, "", err
	case events == nil:
		hook.Events = before.Events
	}
	err = tx.Model(&hook).Select("url", "status", "failing_since", "suspended_at", "suspended_reason", "events", "updated_at").Updates(&hook).Error
	if err != nil {
		return models.Webhook{}, "", fmt.Errorf("update webhook: %w", err)
	}
	if before.Status == models.WebhookSuspended {
		return hook, "", w.appendEvent(tx, models.EventWebhookResumed, agentID)
	}
	return hook, "", nil
}

// createWebhook stores a new webhook and returns the agent's secret.
func (w *Webhooks) createWebhook(tx *database.Tx, hook models.Webhook) (models.Webhook, string, error) {
	if hook.Events == nil {
		hook.Events = []models.WebhookEvent{}
	}
	if err := tx.Create(&hook).Error; err != nil {
		return models.Webhook{}, "", fmt.Errorf("create webhook: %w", err)
	}
	secret, err := w.EnsureSecret(tx, hook.AgentID)
	return hook, secret, err
}

// Resume activates a suspended webhook and clears its failures. It does not change
// an active webhook. Deliveries that failed during the suspension stay failed
// until they are redelivered. It returns CONFLICT when the agent has no webhook.
func (w *Webhooks) Resume(tx *database.Tx, agentID string) (models.Webhook, error) {
	hook, err := webhookByAgent(tx.ForUpdate(), agentID)
	if models.CodeOf(err) == models.NotFound {
		return models.Webhook{}, models.Errorf(models.Conflict, "no webhook is set; set one first")
	}
	if err != nil {
		return models.Webhook{}, err
	}
	if hook.Status == models.WebhookActive {
		return *hook, nil
	}
	resumed := models.Webhook{AgentID: agentID, URL: hook.URL, Status: models.WebhookActive, Events: hook.Events, UpdatedAt: w.timestamp()}
	err = tx.Model(&resumed).Select("status", "failing_since", "suspended_at", "suspended_reason", "updated_at").Updates(&resumed).Error
	if err != nil {
		return models.Webhook{}, fmt.Errorf("resume webhook: %w", err)
	}
	return resumed, w.appendEvent(tx, models.EventWebhookResumed, agentID)
}

// Unsubscribe removes the agent's webhook, if any. The secret and the deliveries
// are kept; pending deliveries fail at their next attempt.
func (w *Webhooks) Unsubscribe(tx *database.Tx, agentID string) error {
	if err := tx.Delete(&models.Webhook{AgentID: agentID}).Error; err != nil {
		return fmt.Errorf("delete webhook: %w", err)
	}
	return nil
}

// Get returns the agent's webhook, or NOT_FOUND without one.
func (w *Webhooks) Get(ctx context.Context, agentID string) (*models.Webhook, error) {
	return webhookByAgent(w.db.Read(ctx), agentID)
}

func webhookByAgent(db *gorm.DB, agentID string) (*models.Webhook, error) {
	var hook models.Webhook
	err := db.Where("agent_id = ?", agentID).Take(&hook).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.NotFound, "no webhook is set")
	}
	if err != nil {
		return nil, fmt.Errorf("read webhook: %w", err)
	}
	return &hook, nil
}
