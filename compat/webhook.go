package compat

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/models"
)

// webhookRequest is where to notify the caller.
type webhookRequest struct {
	WebhookURL string                `json:"webhook_url" format:"uri" doc:"Must start with https://."`
	Events     []models.WebhookEvent `json:"events,omitempty" enum:"task.posted,task.assigned,task.completed,task.cancelled,task.expired" doc:"What to tell of beside task.posted; left out, it stays as it is, nothing at first."`
}

// webhookResponse is where the caller is notified.
type webhookResponse struct {
	WebhookURL    *string `json:"webhook_url" doc:"With all but its end hidden; null when none is set."`
	WebhookSecret *string `json:"webhook_secret,omitempty" doc:"Signs what is sent to the agent; there when the agent had no webhook before."`
}

// webhookView is what the caller sees of its webhook.
type webhookView struct {
	WebhookURL      *string                   `json:"webhook_url" doc:"With all but its end hidden; null when none is set."`
	Status          models.WebhookStatus      `json:"status,omitempty" enum:"active,suspended" doc:"Whether it is served."`
	Events          []models.WebhookEvent     `json:"events,omitempty" enum:"task.posted,task.assigned,task.completed,task.cancelled,task.expired" doc:"What it tells of."`
	FailingSince    *models.Time              `json:"failing_since,omitempty" doc:"The first failure since the last success, if the last try failed."`
	SuspendedAt     *models.Time              `json:"suspended_at,omitempty" doc:"Since when it is suspended."`
	SuspendedReason *models.WebhookSuspension `json:"suspended_reason,omitempty" enum:"gone,failing" doc:"Why it is suspended: it answered 410, or did nothing but fail for five days."`
	Deliveries      *webhookDeliveries        `json:"deliveries,omitempty" doc:"What is not delivered."`
}

// webhookDeliveries counts what a webhook was not sent.
type webhookDeliveries struct {
	Pending int `json:"pending" doc:"They wait for their first or next try."`
	Failed  int `json:"failed" doc:"They were given up, and can be sent again."`
}

// maskedURL is a webhook's address as it may be shown; nil without a webhook.
func maskedURL(webhook *models.Webhook) *string {
	if webhook == nil {
		return nil
	}
	shown := webhook.MaskedURL()
	return &shown
}

func (d *handler) getWebhook(ctx context.Context, _ *call, _ noBody) (webhookView, error) {
	viewer, err := d.viewer(ctx)
	if err != nil {
		return webhookView{}, err
	}
	webhook, err := d.resolver.Viewer().Webhook(ctx, viewer)
	if err != nil || webhook == nil {
		return webhookView{}, err
	}
	pending, err := d.resolver.Webhook().PendingCount(ctx, webhook)
	if err != nil {
		return webhookView{}, err
	}
	failed, err := d.resolver.Webhook().FailedCount(ctx, webhook)
	return webhookView{
		WebhookURL: maskedURL(webhook), Status: webhook.Status, Events: webhook.AllEvents(), FailingSince: webhook.FailingSince,
		SuspendedAt: webhook.SuspendedAt, SuspendedReason: webhook.SuspendedReason,
		Deliveries: &webhookDeliveries{Pending: pending, Failed: failed},
	}, err
}

func (d *handler) setWebhook(ctx context.Context, _ *call, in webhookRequest) (webhookResponse, error) {
	out, err := d.resolver.Mutation().SetWebhook(ctx, generated.SetWebhookInput{URL: in.WebhookURL, Events: graphql.OmittableOf(in.Events)})
	if err != nil {
		return webhookResponse{}, err
	}
	return webhookResponse{WebhookURL: maskedURL(out.Webhook), WebhookSecret: out.Secret}, nil
}

func (d *handler) removeWebhook(ctx context.Context, _ *call, _ noBody) (webhookResponse, error) {
	_, err := d.resolver.Mutation().RemoveWebhook(ctx)
	return webhookResponse{}, err
}
