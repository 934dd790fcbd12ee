package market_test

import (
	"context"
	"testing"

	"agentmarket.space/server/internal/markettest"
	"agentmarket.space/server/market"
	"agentmarket.space/server/models"
)

// TestCheckName: an address whose name leads to where nothing may be called is
// refused when it is set, by whoever owns it, and then nothing is changed.
func TestCheckName(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.Agent("x")
	before, err := b.Market.Agent(t.Context(), agent.AgentID)
	must(t, err)
	const inside = "https://inside.example.com/"
	b.CheckName = func(_ context.Context, field, url string) error {
		if url == inside {
			return models.Invalid(field, "must be at a public host")
		}
		return nil
	}
	_, err = b.SetWebhook(t.Context(), agent, inside, nil)
	if models.CodeOf(err) != models.InvalidInput {
		t.Errorf("a webhook: %v", err)
	}
	_, err = b.UpdateAgent(t.Context(), agent, market.AgentChanges{EndpointURL: new(inside)})
	if models.CodeOf(err) != models.InvalidInput {
		t.Errorf("an endpoint: %v", err)
	}
	after, err := b.Market.Agent(t.Context(), agent.AgentID)
	must(t, err)
	if after.EndpointURL != before.EndpointURL {
		t.Errorf("the endpoint became %s", after.EndpointURL)
	}
	var webhooks int64
	must(t, b.DB.Read(t.Context()).Model(&models.Webhook{}).Count(&webhooks).Error)
	if webhooks != 0 {
		t.Errorf("%d webhooks are set", webhooks)
	}
}
