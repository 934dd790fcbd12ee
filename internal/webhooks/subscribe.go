package webhooks

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Subscribe sets or changes where the agent is notified, an address that passed
// [Webhooks.CheckURL], and of what beside posted tasks; nil leaves that as it is. A
// suspended webhook resumes. The secret comes back only when the agent had no
// webhook: the one it has, or a fresh one.
func (w *Webhooks) Subscribe(tx *database.Tx, agentID, url string, events []models.WebhookEvent) (models.Webhook, string, error) {
	hook := models.Webhook{AgentID: agentID, URL: url, Status: models.WebhookActive, Events: events, UpdatedAt: w.timestamp()}
	if len(events) > 0 {
		w.hasEventSubscribers.Store(true) // if this comes to nothing, some looks are in vain
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
	err = tx.Model(&hook).Select("url", "status", "failing_since", "suspended_at", "suspended_for", "events", "updated_at").Updates(&hook).Error
	if err != nil {
		return models.Webhook{}, "", fmt.Errorf("change webhook: %w", err)
	}
	if before.Status == models.WebhookSuspended {
		return hook, "", w.appendEvent(tx, models.EventWebhookResumed, agentID)
	}
	return hook, "", nil
}

// createWebhook sets the first webhook of an agent, and returns its secret.
func (w *Webhooks) createWebhook(tx *database.Tx, hook models.Webhook) (models.Webhook, string, error) {
	if hook.Events == nil {
		hook.Events = []models.WebhookEvent{}
	}
	if err := tx.Create(&hook).Error; err != nil {
		return models.Webhook{}, "", fmt.Errorf("set webhook: %w", err)
	}
	secret, err := w.EnsureSecret(tx, hook.AgentID)
	return hook, secret, err
}

// Resume has a suspended webhook served again, as if it had never failed; one that
// is served stays as it is. What was due meanwhile stays failed until it is
// redelivered. CONFLICT without a webhook.
func (w *Webhooks) Resume(tx *database.Tx, agentID string) (models.Webhook, error) {
	hook, err := webhookByAgent(tx.ForUpdate(), agentID)
	if models.CodeOf(err) == models.NotFound {
		return models.Webhook{}, models.Errorf(models.Conflict, "no webhook is set: there is nothing to resume")
	}
	if err != nil {
		return models.Webhook{}, err
	}
	if hook.Status == models.WebhookActive {
		return *hook, nil
	}
	fresh := models.Webhook{AgentID: agentID, URL: hook.URL, Status: models.WebhookActive, Events: hook.Events, UpdatedAt: w.timestamp()}
	err = tx.Model(&fresh).Select("status", "failing_since", "suspended_at", "suspended_for", "updated_at").Updates(&fresh).Error
	if err != nil {
		return models.Webhook{}, fmt.Errorf("resume webhook: %w", err)
	}
	return fresh, w.appendEvent(tx, models.EventWebhookResumed, agentID)
}

// Unsubscribe removes the agent's webhook. Its secret and its deliveries stay;
// those still pending fail when their turn comes. Without a webhook it changes
// nothing.
func (w *Webhooks) Unsubscribe(tx *database.Tx, agentID string) error {
	if err := tx.Delete(&models.Webhook{AgentID: agentID}).Error; err != nil {
		return fmt.Errorf("remove webhook: %w", err)
	}
	return nil
}

// Get returns the agent's webhook, NOT_FOUND when it has none.
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
