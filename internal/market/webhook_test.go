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

// TestCheckHost: an address whose name leads to where nothing may be called is
// refused when it is set, by whoever owns it, and then nothing is changed.
func TestCheckHost(t *testing.T) {
	t.Parallel()
	const inside = "https://inside.example.com/"
	b := markettest.New(t, func(deps *market.Deps) {
		deps.CheckHost = func(_ context.Context, field, url string) error {
			if url == inside {
				return models.Invalid(field, "must be at a public host")
			}
			return nil
		}
	})
	agent := b.NewAgent("x")
	before, err := b.Market.Agent(t.Context(), agent.AgentID)
	testutil.Must(t, err)
	_, err = b.SetWebhook(t.Context(), agent, inside, nil)
	if models.CodeOf(err) != models.InvalidInput {
		t.Errorf("a webhook: %v", err)
	}
	_, err = b.UpdateAgent(t.Context(), agent, market.AgentChanges{EndpointURL: new(inside)})
	if models.CodeOf(err) != models.InvalidInput {
		t.Errorf("an endpoint: %v", err)
	}
	after, err := b.Market.Agent(t.Context(), agent.AgentID)
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

// TestCheckHost_skippedOnReplay: what was answered is answered again with the same key,
// whatever has become of the name since, and nobody looks it up. A key of another
// request, and one that is no longer kept, are looked up like none.
func TestCheckHost_skippedOnReplay(t *testing.T) {
	t.Parallel()
	checks, moved := 0, false
	b := markettest.New(t, func(deps *market.Deps) {
		deps.CheckHost = func(_ context.Context, field, _ string) error {
			if checks++; moved {
				return models.Invalid(field, "must be at a public host")
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
	for what, change := range changes {
		checks, moved = 0, false
		with := func(key string) context.Context {
			return auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: key})
		}
		testutil.Must(t, change(with(what), address))
		moved = true
		again := with(what)
		testutil.Must(t, change(again, address))
		if !auth.RequestFrom(again).Replayed.Load() {
			t.Errorf("%s: it was not replayed", what)
		}
		wantCode(t, change(with(what), address+"other"), models.IdempotencyReused)
		if checks != 1 {
			t.Errorf("%s: looked up %d times, want once", what, checks)
		}
		wantCode(t, change(with(what+" of another request"), address), models.InvalidInput)
		wantCode(t, change(with("\xff"), address), models.InvalidInput)
		wantCode(t, change(t.Context(), address), models.InvalidInput)
	}
	b.Clock.Advance(24 * time.Hour)
	for what, change := range changes {
		wantCode(t, change(auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: what}), address), models.InvalidInput)
	}
}
