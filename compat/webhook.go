package compat

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/models"
)

// webhookRequest sets the caller's webhook.
type webhookRequest struct {
	WebhookURL string                `json:"webhook_url" format:"uri" doc:"Must start with https://."`
	Events     []models.WebhookEvent `json:"events,omitempty" enum:"task.posted,task.assigned,task.completed,task.cancelled,task.expired" doc:"Events to send in addition to task.posted. If omitted, the current events are kept."`
}

// webhookResponse is the caller's webhook after a change.
type webhookResponse struct {
	WebhookURL    *string `json:"webhook_url" doc:"The masked URL; null if none is set."`
	WebhookSecret *string `json:"webhook_secret,omitempty" doc:"Signing secret. Returned when the agent had no webhook before."`
}

// webhookView is the status of the caller's webhook.
type webhookView struct {
	WebhookURL      *string                   `json:"webhook_url" doc:"The masked URL; null if none is set."`
	Status          models.WebhookStatus      `json:"status,omitempty" enum:"active,suspended" doc:"active, or suspended: nothing is sent."`
	Events          []models.WebhookEvent     `json:"events,omitempty" enum:"task.posted,task.assigned,task.completed,task.cancelled,task.expired" doc:"Events that are sent."`
	FailingSince    *models.Time              `json:"failing_since,omitempty" doc:"Time of the first failure since the last success, if the last attempt failed."`
	SuspendedAt     *models.Time              `json:"suspended_at,omitempty" doc:"Time of the suspension."`
	SuspendedReason *models.WebhookSuspension `json:"suspended_reason,omitempty" enum:"gone,failing" doc:"gone: the endpoint responded with 410. failing: all attempts failed for five days."`
	Deliveries      *webhookDeliveries        `json:"deliveries,omitempty" doc:"Number of undelivered requests."`
}

// webhookDeliveries counts undelivered requests.
type webhookDeliveries struct {
	Pending int `json:"pending" doc:"Waiting for their first or next attempt."`
	Failed  int `json:"failed" doc:"Not retried automatically any more. They can be redelivered."`
}

// maskedURL returns the masked URL of a webhook, or nil for no webhook.
func maskedURL(webhook *models.Webhook) *string {
	if webhook == nil {
		return nil
	}
	masked := webhook.MaskedURL()
	return &masked
}

func (h *handler) getWebhook(ctx context.Context, _ *call, _ noBody) (webhookView, error) {
	viewer, err := h.viewer(ctx)
	if err != nil {
		return webhookView{}, err
	}
	webhook, err := h.resolver.Viewer().Webhook(ctx, viewer)
	if err != nil || webhook == nil {
		return webhookView{}, err
	}
	pending, err := h.resolver.Webhook().PendingCount(ctx, webhook)
	if err != nil {
		return webhookView{}, err
	}
	failed, err := h.resolver.Webhook().FailedCount(ctx, webhook)
	return webhookView{
		WebhookURL: maskedURL(webhook), Status: webhook.Status, Events: webhook.AllEvents(), FailingSince: webhook.FailingSince,
		SuspendedAt: webhook.SuspendedAt, SuspendedReason: webhook.SuspendedReason,
		Deliveries: &webhookDeliveries{Pending: pending, Failed: failed},
	}, err
}

func (h *handler) setWebhook(ctx context.Context, _ *call, in webhookRequest) (webhookResponse, error) {
	out, err := h.resolver.Mutation().SetWebhook(ctx, generated.SetWebhookInput{URL: in.WebhookURL, Events: graphql.OmittableOf(in.Events)})
	if err != nil {
		return webhookResponse{}, err
	}
	return webhookResponse{WebhookURL: maskedURL(out.Webhook), WebhookSecret: out.Secret}, nil
}

func (h *handler) removeWebhook(ctx context.Context, _ *call, _ noBody) (webhookResponse, error) {
	_, err := h.resolver.Mutation().RemoveWebhook(ctx)
	return webhookResponse{}, err
}
