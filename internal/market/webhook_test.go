package market_test

import (
	"context"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestCheckHost: a webhook or endpoint whose host resolves to a forbidden address is
// rejected, and nothing changes.
func TestCheckHost(t *testing.T) {
	t.Parallel()
	const internalURL = "https://inside.example.com/"
	b := markettest.New(t, func(deps *market.Deps) {
		deps.CheckHost = func(_ context.Context, field, url string) error {
			if url == internalURL {
				return models.FieldErrorf(field, "must be at a public host")
			}
			return nil
		}
	})
	agent := b.NewAgent("x")
	before, err := b.Agent(t.Context(), agent.AgentID)
	testutil.Must(t, err)
	_, err = b.SetWebhook(t.Context(), agent, internalURL, nil)
	if models.CodeOf(err) != models.InvalidInput {
		t.Errorf("SetWebhook returned %v", err)
	}
	_, err = b.UpdateAgent(t.Context(), agent, market.AgentChanges{EndpointURL: new(internalURL)})
	if models.CodeOf(err) != models.InvalidInput {
		t.Errorf("UpdateAgent returned %v", err)
	}
	after, err := b.Agent(t.Context(), agent.AgentID)
	testutil.Must(t, err)
	if after.EndpointURL != before.EndpointURL {
		t.Errorf("the endpoint became %s", after.EndpointURL)
	}
	var webhooks int64
	testutil.Must(t, b.DB.Read(t.Context()).Model(&models.Webhook{}).Count(&webhooks).Error)
	if webhooks != 0 {
		t.Errorf("%d webhooks are set", webhooks)
	}
}

// TestCheckHost_skippedOnReplay: a replay does not resolve the host again. Requests with an
// unused, malformed or expired key do.
func TestCheckHost_skippedOnReplay(t *testing.T) {
	t.Parallel()
	checks, rejected := 0, false
	b := markettest.New(t, func(deps *market.Deps) {
		deps.CheckHost = func(_ context.Context, field, _ string) error {
			if checks++; rejected {
				return models.FieldErrorf(field, "must be at a public host")
			}
			return nil
		}
	})
	agent := b.NewAgent("x")
	const address = "https://bot.example.com/"
	changes := map[string]func(ctx context.Context, url string) error{
		"webhook": func(ctx context.Context, url string) error {
			_, err := b.SetWebhook(ctx, agent, url, nil)
			return err
		},
		"endpoint": func(ctx context.Context, url string) error {
			_, err := b.UpdateAgent(ctx, agent, market.AgentChanges{EndpointURL: &url})
			return err
		},
	}
	for name, change := range changes {
		checks, rejected = 0, false
		with := func(key string) context.Context {
			return auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: key})
		}
		testutil.Must(t, change(with(name), address))
		rejected = true
		again := with(name)
		testutil.Must(t, change(again, address))
		if !auth.RequestFrom(again).Replayed.Load() {
			t.Errorf("%s: the request was not replayed", name)
		}
		wantCode(t, change(with(name), address+"other"), models.IdempotencyReused)
		if checks != 1 {
			t.Errorf("%s: resolved %d times, want once", name, checks)
		}
		wantCode(t, change(with(name+" of another request"), address), models.InvalidInput)
		wantCode(t, change(with("\xff"), address), models.InvalidInput)
		wantCode(t, change(t.Context(), address), models.InvalidInput)
	}
	b.Clock.Advance(24 * time.Hour)
	for name, change := range changes {
		wantCode(t, change(auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: name}), address), models.InvalidInput)
	}
}
