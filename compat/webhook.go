package compat

import (
	"context"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/models"
)

// webhookRequest is where to notify the caller.
type webhookRequest struct {
	WebhookURL string `json:"webhook_url" format:"uri" doc:"Must start with https://."`
}

// webhookAnswer is where the caller is notified.
type webhookAnswer struct {
	WebhookURL    *string `json:"webhook_url" doc:"With all but its end hidden; null when none is set."`
	WebhookSecret *string `json:"webhook_secret,omitempty" doc:"Signs what is sent to the agent; there when the agent had no webhook before."`
}

// masked is a webhook's address as it may be shown; nil without a webhook.
func masked(webhook *models.Webhook) *string {
	if webhook == nil {
		return nil
	}
	shown := webhook.MaskedURL()
	return &shown
}

func (d *door) webhook(ctx context.Context, _ *call, _ nothing) (webhookAnswer, error) {
	viewer, err := d.viewer(ctx)
	if err != nil {
		return webhookAnswer{}, err
	}
	webhook, err := d.graph.Viewer().Webhook(ctx, viewer)
	return webhookAnswer{WebhookURL: masked(webhook)}, err
}

func (d *door) setWebhook(ctx context.Context, _ *call, in webhookRequest) (webhookAnswer, error) {
	out, err := d.graph.Mutation().SetWebhook(ctx, generated.SetWebhookInput{URL: in.WebhookURL})
	if err != nil {
		return webhookAnswer{}, err
	}
	return webhookAnswer{WebhookURL: masked(out.Webhook), WebhookSecret: out.Secret}, nil
}

func (d *door) removeWebhook(ctx context.Context, _ *call, _ nothing) (webhookAnswer, error) {
	_, err := d.graph.Mutation().RemoveWebhook(ctx)
	return webhookAnswer{}, err
}
