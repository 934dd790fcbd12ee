package market_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestIdempotency(t *testing.T) {
	t.Parallel()
	withKey := func(ctx context.Context, key string) (context.Context, *auth.Request) {
		request := &auth.Request{IdempotencyKey: key, Address: "192.0.2.1"}
		return auth.WithRequest(ctx, request), request
	}
	in := market.PostTaskInput{Title: "T", Description: "D", Budget: 10}
	t.Run("concurrent requests with one key post once", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster := b.NewAgent()
		var ids sync.Map
		runConcurrently(20, func(int) {
			ctx, _ := withKey(t.Context(), "k")
			out, err := b.Post(ctx, poster, in)
			if err != nil {
				t.Error(err)
			}
			ids.Store(out.Task.ID, out.Wallet.Available)
		})
		n := 0
		ids.Range(func(_, balance any) bool { n++; return balance == models.Credits(90) })
		if n != 1 {
			t.Errorf("got %d different tasks, want 1", n)
		}
		wantBalances(t, b, poster, 90, 10)
		ctx, request := withKey(t.Context(), "k")
		if _, err := b.Post(ctx, poster, in); err != nil || !request.Replayed.Load() {
			t.Errorf("replayed is %t (%v)", request.Replayed.Load(), err)
		}
		other := in
		other.Budget = 11
		_, err := b.Post(ctx, poster, other)
		wantCode(t, err, models.IdempotencyReused)
		b.Clock.Advance(25 * time.Hour)
		if _, err := b.Post(ctx, poster, other); err != nil {
			t.Errorf("after a day the key is still used: %v", err)
		}
	})
	t.Run("a failed operation leaves the key unused", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster := b.NewAgent()
		ctx, _ := withKey(t.Context(), "k")
		tooMuch := in
		tooMuch.Budget = 101
		_, err := b.Post(ctx, poster, tooMuch)
		wantCode(t, err, models.InsufficientFunds)
		if _, err := b.Post(ctx, poster, in); err != nil {
			t.Error(err)
		}
	})
	t.Run("a registration replays its API key", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		ctx, _ := withKey(t.Context(), "0123456789abcdef")
		first, err := b.Register(ctx, market.RegisterAgentInput{Name: "A"})
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.Register(ctx, market.RegisterAgentInput{Name: "A"})
		if err != nil || again.APIKey != first.APIKey || again.Agent.ID != first.Agent.ID {
			t.Errorf("the replay returned another agent (%v)", err)
		}
		short, _ := withKey(t.Context(), "1")
		_, err = b.Register(short, market.RegisterAgentInput{Name: "A"})
		wantCode(t, err, models.InvalidInput)
	})
	t.Run("a failed hire replays its error and calls the agent once", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		calls := 0
		b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
			calls++
			return "", models.Errorf(models.ExecutionFailed, "no")
		}
		ctx, _ := withKey(t.Context(), "k")
		for range 3 {
			_, err := b.Execute(ctx, poster, market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 10})
			wantCode(t, err, models.ExecutionFailed)
		}
		if calls != 1 {
			t.Errorf("the agent was called %d times", calls)
		}
		wantBalances(t, b, poster, 100, 0)
	})
	t.Run("a hire is replayed after its agent can no longer be hired", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		ctx, request := withKey(t.Context(), "k")
		in := market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 10}
		first, err := b.Execute(ctx, poster, in)
		testutil.Must(t, err)
		_, err = b.UpdateAgent(t.Context(), worker, market.AgentChanges{PricePerTask: new(models.Credits(50)), EndpointURL: new("")})
		testutil.Must(t, err)
		again, err := b.Execute(ctx, poster, in)
		if err != nil || again.Task.ID != first.Task.ID || !request.Replayed.Load() {
			t.Errorf("got task %s (%v), want %s again", again.Task.ID, err, first.Task.ID)
		}
		wantBalances(t, b, poster, 90, 0)
	})
}
