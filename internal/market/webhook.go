package market

import (
	"context"
	"net/url"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/models"
)

// maxSecretOverlap is the longest time that a replaced secret can keep signing.
const maxSecretOverlap = 24 * time.Hour

// Webhooks delivers events to the URLs that agents subscribe.
type Webhooks interface {
	// Subscribe sets an agent's URL, and the events it gets in addition to posted tasks
	// unless events is nil. The secret is empty if the agent had one already.
	Subscribe(tx *database.Tx, agentID, url string, events []models.WebhookEvent) (webhook models.Webhook, secret string, err error)
	// Unsubscribe removes an agent's URL.
	Unsubscribe(tx *database.Tx, agentID string) error
	// Resume resumes deliveries to an agent's suspended URL.
	Resume(tx *database.Tx, agentID string) (models.Webhook, error)
	// EnsureSecret returns the agent's secret and creates it if there is none.
	EnsureSecret(tx *database.Tx, agentID string) (string, error)
	// RotateSecret replaces an agent's secret. Both secrets sign until the overlap ends.
	RotateSecret(tx *database.Tx, agentID string, overlap time.Duration) (models.Webhook, string, error)

	// Notify delivers an appended event to its recipients after the commit.
	Notify(tx *database.Tx, event *models.Event) error
	// Redeliver sends a delivery again.
	Redeliver(tx *database.Tx, agentID, deliveryID string) (models.Delivery, error)
	// FailedDeliveries returns a page of the agent's failed deliveries.
	FailedDeliveries(ctx context.Context, agentID string, in models.FailedDeliveryQuery) (ids []string, more bool, err error)
	// RedeliverFailed sends those of the deliveries again that are still failed, and
	// returns their number.
	RedeliverFailed(tx *database.Tx, agentID string, ids []string) (int, error)

	// Prune deletes expired deliveries.
	Prune(ctx context.Context) error
	// OldestNeeded returns the id of the oldest event that a delivery refers to.
	OldestNeeded(ctx context.Context) (eventID int64, err error)
}

// WebhookResult is an agent's webhook, and its secret if it was just created.
type WebhookResult struct {
	Webhook models.Webhook
	Secret  *string
}

// setWebhookInput is the fingerprint of SetWebhook.
type setWebhookInput struct {
	URL    string
	Events []models.WebhookEvent
}

// SetWebhook sets the caller's webhook URL, and the events it gets in addition to posted
// tasks; nil events keep the current ones. INVALID_INPUT for a URL that must not be
// called and for an unknown event.
func (m *Market) SetWebhook(ctx context.Context, actor auth.Actor, url string, events []models.WebhookEvent) (WebhookResult, error) {
	url, err := m.deps.CheckURL("url", url)
	if err != nil {
		return WebhookResult{}, err
	}
	replay, err := m.checkUnlessReplayed(ctx, actor.AgentID, func() error { return m.deps.CheckHost(ctx, "url", url) })
	if err != nil {
		return WebhookResult{}, err
	}
	if events != nil {
		if events, err = models.NormalizeWebhookEvents("events", events); err != nil {
			return WebhookResult{}, err
		}
	}
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "setWebhook", setWebhookInput{url, events}, func(tx *database.Tx) (WebhookResult, error) {
		if replay {
			return WebhookResult{}, idempotency.KeyExpiredError()
		}
		if err := m.lockAgent(tx, actor); err != nil {
			return WebhookResult{}, err
		}
		if err := m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditWebhookSet, urlHost(url)); err != nil {
			return WebhookResult{}, err
		}
		webhook, secret, err := m.deps.Webhooks.Subscribe(tx, actor.AgentID, url, events)
		return newWebhookResult(webhook, secret), err
	})
}

// RemoveWebhook removes the caller's webhook.
func (m *Market) RemoveWebhook(ctx context.Context, actor auth.Actor) error {
	_, err := idempotency.Run(ctx, m.idempotency, actor.AgentID, "removeWebhook", struct{}{}, func(tx *database.Tx) (struct{}, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return struct{}{}, err
		}
		if err := m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditWebhookRemoved, actor.AgentID); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, m.deps.Webhooks.Unsubscribe(tx, actor.AgentID)
	})
	return err
}

// RotateSecret replaces the caller's signing secret. Both secrets sign for
// overlapMinutes, 0 to 1440. INVALID_INPUT for another number. CONFLICT without a webhook,
// and if too many replaced secrets still sign.
func (m *Market) RotateSecret(ctx context.Context, actor auth.Actor, overlapMinutes int) (WebhookResult, error) {
	if overlapMinutes < 0 || overlapMinutes > int(maxSecretOverlap.Minutes()) {
		return WebhookResult{}, models.FieldErrorf("overlapMinutes", "must be from 0 to %d", int(maxSecretOverlap.Minutes()))
	}
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "rotateWebhookSecret", overlapMinutes, func(tx *database.Tx) (WebhookResult, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return WebhookResult{}, err
		}
		if err := m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditSecretRotated, actor.AgentID); err != nil {
			return WebhookResult{}, err
		}
		webhook, secret, err := m.deps.Webhooks.RotateSecret(tx, actor.AgentID, time.Duration(overlapMinutes)*time.Minute)
		return newWebhookResult(webhook, secret), err
	})
}

// ResumeWebhook resumes deliveries to the caller's suspended webhook. CONFLICT if there is
// no webhook.
func (m *Market) ResumeWebhook(ctx context.Context, actor auth.Actor) (models.Webhook, error) {
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "resumeWebhook", struct{}{}, func(tx *database.Tx) (models.Webhook, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return models.Webhook{}, err
		}
		if err := m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditWebhookResumed, actor.AgentID); err != nil {
			return models.Webhook{}, err
		}
		return m.deps.Webhooks.Resume(tx, actor.AgentID)
	})
}

// Redeliver sends a delivery to the caller again. NOT_FOUND for another agent's delivery.
func (m *Market) Redeliver(ctx context.Context, actor auth.Actor, deliveryID string) (models.Delivery, error) {
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "redeliverWebhook", deliveryID, func(tx *database.Tx) (models.Delivery, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return models.Delivery{}, err
		}
		if err := m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditDeliveryRepeated, deliveryID); err != nil {
			return models.Delivery{}, err
		}
		return m.deps.Webhooks.Redeliver(tx, actor.AgentID, deliveryID)
	})
}

// maxRedeliveries bounds one call of RedeliverFailed, because other writers wait for its
// transaction: 1000 deliveries took 80 to 190 ms on SQLite with two busy cores.
const maxRedeliveries = 200

// RedeliveryResult is the result of [Market.RedeliverFailed].
type RedeliveryResult struct {
	Count   int
	LastID  string // of the last delivery of the page; empty for an empty page
	HasMore bool
}

// RedeliverFailed sends a page of the caller's failed deliveries again. INVALID_INPUT for
// an invalid page.
func (m *Market) RedeliverFailed(ctx context.Context, actor auth.Actor, in models.FailedDeliveryQuery) (RedeliveryResult, error) {
	after, isID := models.ParseUUID(in.After)
	switch {
	case in.First < 1 || in.First > maxRedeliveries:
		return RedeliveryResult{}, models.FieldErrorf("first", "must be from 1 to %d", maxRedeliveries)
	case in.After != "" && !isID:
		return RedeliveryResult{}, models.FieldErrorf("after", "must be the cursor of a page before")
	case in.Until != nil && *in.Until <= in.Since:
		return RedeliveryResult{}, models.FieldErrorf("until", "must be later than since")
	}
	in.After = after
	ids, more, err := m.deps.Webhooks.FailedDeliveries(ctx, actor.AgentID, in)
	if err != nil {
		return RedeliveryResult{}, err
	}
	out := RedeliveryResult{HasMore: more}
	if len(ids) > 0 {
		out.LastID = ids[len(ids)-1]
	}
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "redeliverWebhooks", in, func(tx *database.Tx) (RedeliveryResult, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return RedeliveryResult{}, err
		}
		n, err := m.deps.Webhooks.RedeliverFailed(tx, actor.AgentID, ids)
		if err == nil && n > 0 {
			err = m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditDeliveryRepeated, out.LastID)
		}
		return RedeliveryResult{Count: n, LastID: out.LastID, HasMore: out.HasMore}, err
	})
}

// urlHost returns the host of a URL, without its path and query, which can be secret.
func urlHost(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}

func newWebhookResult(webhook models.Webhook, secret string) WebhookResult {
	if secret == "" {
		return WebhookResult{Webhook: webhook}
	}
	return WebhookResult{Webhook: webhook, Secret: &secret}
}
