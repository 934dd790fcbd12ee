package market

import (
	"context"
	"net/url"
	"time"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/database"
	"agentmarket.space/server/models"
)

// maxOverlap is how long a replaced secret may keep signing.
const maxOverlap = 24 * time.Hour

// Deliverer keeps how agents are notified.
type Deliverer interface {
	// Unsubscribe removes an agent's address.
	Unsubscribe(tx *database.Tx, agentID string) error
	// Rotate replaces an agent's secret; both sign until the overlap ends.
	Rotate(tx *database.Tx, agentID string, overlap time.Duration) (models.Webhook, string, error)
	// Redeliver has a delivery made again.
	Redeliver(tx *database.Tx, agentID, deliveryID string) (models.Delivery, error)
}

// WebhookResult is an agent's webhook and, when one was made, its secret.
type WebhookResult struct {
	Webhook models.Webhook
	Secret  *string
}

// SetWebhook sets or changes where the caller is notified. INVALID_INPUT for an
// address that may not be called.
func (m *Market) SetWebhook(ctx context.Context, actor auth.Actor, address string) (WebhookResult, error) {
	address, err := m.CheckURL("url", address)
	if err != nil {
		return WebhookResult{}, err
	}
	return once(ctx, m, actor.AgentID, "setWebhook", address, func(tx *database.Tx) (WebhookResult, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return WebhookResult{}, err
		}
		if err := m.note(ctx, tx, actor.AgentID, models.WebhookSet, host(address)); err != nil {
			return WebhookResult{}, err
		}
		webhook, secret, err := m.Notifier.Subscribe(tx, actor.AgentID, address)
		return webhookResult(webhook, secret), err
	})
}

// RemoveWebhook stops notifying the caller.
func (m *Market) RemoveWebhook(ctx context.Context, actor auth.Actor) error {
	_, err := once(ctx, m, actor.AgentID, "removeWebhook", struct{}{}, func(tx *database.Tx) (struct{}, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return struct{}{}, err
		}
		if err := m.note(ctx, tx, actor.AgentID, models.WebhookRemoved, actor.AgentID); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, m.Deliverer.Unsubscribe(tx, actor.AgentID)
	})
	return err
}

// RotateSecret replaces the secret that signs what is sent to the caller. Both
// sign for so many minutes, 0 to 1440.
func (m *Market) RotateSecret(ctx context.Context, actor auth.Actor, overlapMinutes int) (WebhookResult, error) {
	if overlapMinutes < 0 || overlapMinutes > int(maxOverlap.Minutes()) {
		return WebhookResult{}, models.Invalid("overlapMinutes", "must be from 0 to %d", int(maxOverlap.Minutes()))
	}
	return once(ctx, m, actor.AgentID, "rotateWebhookSecret", overlapMinutes, func(tx *database.Tx) (WebhookResult, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return WebhookResult{}, err
		}
		if err := m.note(ctx, tx, actor.AgentID, models.SecretRotated, actor.AgentID); err != nil {
			return WebhookResult{}, err
		}
		webhook, secret, err := m.Deliverer.Rotate(tx, actor.AgentID, time.Duration(overlapMinutes)*time.Minute)
		return webhookResult(webhook, secret), err
	})
}

// Redeliver has a delivery to the caller made again. NOT_FOUND for others'.
func (m *Market) Redeliver(ctx context.Context, actor auth.Actor, deliveryID string) (models.Delivery, error) {
	return once(ctx, m, actor.AgentID, "redeliverWebhook", deliveryID, func(tx *database.Tx) (models.Delivery, error) {
		if err := m.note(ctx, tx, actor.AgentID, models.DeliveryRepeated, deliveryID); err != nil {
			return models.Delivery{}, err
		}
		return m.Deliverer.Redeliver(tx, actor.AgentID, deliveryID)
	})
}

// host is where an address leads, without what in it may be secret.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

func webhookResult(webhook models.Webhook, secret string) WebhookResult {
	if secret == "" {
		return WebhookResult{Webhook: webhook}
	}
	return WebhookResult{Webhook: webhook, Secret: &secret}
}
