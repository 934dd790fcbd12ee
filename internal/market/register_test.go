package market_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// newRateLimitedMarket makes a market in a store, with registrations at the server's pace.
func newRateLimitedMarket(t *testing.T, address string) *markettest.Bundle {
	t.Helper()
	b := markettest.NewWithDatabase(t, address)
	b.Settings.RegisterEvery, b.Settings.RegisterBurst = time.Minute, 60
	return b
}

// registerFrom registers an agent from an address.
func registerFrom(ctx context.Context, b *markettest.Bundle, address, key string) error {
	request := &auth.Request{Address: address, IdempotencyKey: key}
	_, err := b.Register(auth.WithRequest(ctx, request), market.RegisterAgentInput{Name: "A"})
	return err
}

// countRows counts the rows of a table.
func countRows(t *testing.T, b *markettest.Bundle, table string) (n int64) {
	t.Helper()
	testutil.Must(t, b.DB.Read(t.Context()).Table(table).Count(&n).Error)
	return n
}

func TestRegister_rateLimit(t *testing.T) {
	t.Parallel()
	t.Run("of 200 at once from one network sixty are let in, by however many replicas", func(t *testing.T) {
		t.Parallel()
		address := services.NewDatabase(t)
		replicas := []*markettest.Bundle{newRateLimitedMarket(t, address)}
		if services.OnPostgres() {
			replicas = append(replicas, newRateLimitedMarket(t, address))
		}
		var admitted, refused atomic.Int64
		runConcurrently(200, func(i int) {
			err := registerFrom(t.Context(), replicas[i%len(replicas)], fmt.Sprintf("2001:db8:1:2::%x", i), "")
			switch {
			case err == nil:
				admitted.Add(1)
			case models.CodeOf(err) == models.RateLimited && models.AsError(err).RetryAfter == time.Minute:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
		b := replicas[0]
		if admitted.Load() != 60 || refused.Load() != 140 || countRows(t, b, "agents") != 60 || countRows(t, b, "registrants") != 1 {
			t.Errorf("%d were let in and %d refused; there are %d agents, %d registrants",
				admitted.Load(), refused.Load(), countRows(t, b, "agents"), countRows(t, b, "registrants"))
		}
		testutil.Must(t, registerFrom(t.Context(), b, "2001:db8:1:3::1", ""))
		testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", ""))
		b.VerifyLedger()
	})
	t.Run("a restart gives nothing back", func(t *testing.T) {
		t.Parallel()
		address := services.NewDatabase(t)
		t.Run("before", func(t *testing.T) { //nolint:paralleltest // one after the other
			b := newRateLimitedMarket(t, address)
			for range 60 {
				testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", ""))
			}
		})
		t.Run("after", func(t *testing.T) { //nolint:paralleltest // one after the other
			wantCode(t, registerFrom(t.Context(), newRateLimitedMarket(t, address), "192.0.2.1", ""), models.RateLimited)
		})
	})
	t.Run("what is not registered is not counted, and a refusal leaves nothing behind", func(t *testing.T) {
		t.Parallel()
		b := newRateLimitedMarket(t, services.NewDatabase(t))
		for range 100 {
			testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", "the same key for all"))
		}
		var kept, after models.Registrant
		testutil.Must(t, b.DB.Read(t.Context()).Take(&kept).Error)
		if kept.FullAt.AsTime() != b.Clock.Now().Add(time.Minute) {
			t.Errorf("one registration and 99 repetitions are counted until %s", kept.FullAt)
		}
		b.FakeWebhooks.SubscribeFunc = func() error { return errBroken }
		ctx := auth.WithRequest(t.Context(), &auth.Request{Address: "192.0.2.1"})
		if _, err := b.Register(ctx, market.RegisterAgentInput{Name: "A", WebhookURL: new("https://a.example")}); !errors.Is(err, errBroken) {
			t.Fatalf("got %v", err)
		}
		testutil.Must(t, b.DB.Read(t.Context()).Take(&after).Error)
		if after != kept {
			t.Errorf("a registration that failed moved %v to %v", kept, after)
		}
		b.Settings.RegisterBurst = 1
		wantCode(t, registerFrom(t.Context(), b, "192.0.2.1", "another, which is left"), models.RateLimited)
		testutil.Must(t, b.DB.Read(t.Context()).Take(&after).Error)
		if after != kept || countRows(t, b, "agents") != 1 || countRows(t, b, "idempotency_keys") != 1 || countRows(t, b, "transfers") != 1 {
			t.Errorf("a refusal left %v for %v, %d agents, %d keys and %d transfers", after, kept,
				countRows(t, b, "agents"), countRows(t, b, "idempotency_keys"), countRows(t, b, "transfers"))
		}
	})
	t.Run("who was refused is refused without asking the database, until the time that it was told", func(t *testing.T) {
		t.Parallel()
		b := newRateLimitedMarket(t, services.NewDatabase(t))
		b.Settings.RegisterBurst = 1
		testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", "the first one, with a key"))
		wantCode(t, registerFrom(t.Context(), b, "192.0.2.1", ""), models.RateLimited)
		testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error { return tx.Exec("DELETE FROM registrants").Error })) // as if it were free
		for _, key := range []string{"", "a key that nobody used"} {
			err := registerFrom(t.Context(), b, "192.0.2.1", key)
			if models.CodeOf(err) != models.RateLimited || models.AsError(err).RetryAfter != time.Minute {
				t.Errorf("with the key %q: %v", key, err)
			}
		}
		testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", "the first one, with a key"))
		testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.2", ""))
		b.Clock.Advance(time.Minute)
		testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", ""))
	})
	t.Run("a network is forgotten when it has all of its burst again", func(t *testing.T) {
		t.Parallel()
		b := newRateLimitedMarket(t, services.NewDatabase(t))
		for range 2 {
			testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", ""))
		}
		b.Clock.Advance(2*time.Minute - time.Microsecond)
		mustPrune(t, b)
		if countRows(t, b, "registrants") != 1 {
			t.Error("it is forgotten too early")
		}
		b.Clock.Advance(time.Microsecond)
		mustPrune(t, b)
		if countRows(t, b, "registrants") != 0 {
			t.Error("it is kept for ever")
		}
	})
}

// TestRegister_rateLimitProperty: whenever one tries, it is let in exactly when no stretch of
// time that ends now would have more than a burst and what its minutes give.
func TestRegister_rateLimitProperty(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	b.Settings.StartingCredits = 0
	const every, burst = time.Minute, 3
	b.Settings.RegisterEvery, b.Settings.RegisterBurst = every, burst
	networks := 0
	rapid.Check(t, func(r *rapid.T) {
		networks++
		address := fmt.Sprintf("10.0.%d.%d", networks/256, networks%256)
		var admitted []time.Time
		for range rapid.IntRange(1, 20).Draw(r, "attempts") {
			b.Clock.Advance(time.Duration(rapid.IntRange(0, 100).Draw(r, "seconds")) * time.Second)
			now := b.Clock.Now()
			wait := time.Duration(0) // until every stretch has room
			for i, since := range admitted {
				wait = max(wait, time.Duration(len(admitted)-i+1-burst)*every-now.Sub(since))
			}
			err := registerFrom(t.Context(), b, address, "")
			switch {
			case wait == 0 && err == nil:
				admitted = append(admitted, now)
			case wait == 0 || models.CodeOf(err) != models.RateLimited || models.AsError(err).RetryAfter != wait:
				r.Fatalf("after %d were let in: got %v, want a wait of %s", len(admitted), err, wait)
			}
		}
	})
}
