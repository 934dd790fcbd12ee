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

// newRateLimitedMarket opens a market with the default registration limit.
func newRateLimitedMarket(t *testing.T, address string) *markettest.Bundle {
	t.Helper()
	b := markettest.NewWithDatabase(t, address)
	b.Settings.RegistrationInterval, b.Settings.RegistrationBurst = time.Minute, 60
	return b
}

// registerFrom registers an agent from an address.
func registerFrom(ctx context.Context, b *markettest.Bundle, address, key string) error {
	request := &auth.Request{Address: address, IdempotencyKey: key}
	_, err := b.Register(auth.WithRequest(ctx, request), market.RegisterAgentInput{Name: "A"})
	return err
}

// countRows returns the number of rows of a table.
func countRows(t *testing.T, b *markettest.Bundle, table string) (n int64) {
	t.Helper()
	testutil.Must(t, b.DB.Read(t.Context()).Table(table).Count(&n).Error)
	return n
}

func TestRegister_rateLimit(t *testing.T) {
	t.Parallel()
	t.Run("of 200 concurrent registrations of one network 60 succeed, across replicas", func(t *testing.T) {
		t.Parallel()
		address := services.NewDatabase(t)
		replicas := []*markettest.Bundle{newRateLimitedMarket(t, address)}
		if services.OnPostgres() {
			replicas = append(replicas, newRateLimitedMarket(t, address))
		}
		var admitted, rejected atomic.Int64
		runConcurrently(200, func(i int) {
			err := registerFrom(t.Context(), replicas[i%len(replicas)], fmt.Sprintf("2001:db8:1:2::%x", i), "")
			switch {
			case err == nil:
				admitted.Add(1)
			case models.CodeOf(err) == models.RateLimited && models.AsError(err).RetryAfter == time.Minute:
				rejected.Add(1)
			default:
				t.Error(err)
			}
		})
		b := replicas[0]
		if admitted.Load() != 60 || rejected.Load() != 140 || countRows(t, b, "agents") != 60 || countRows(t, b, "registrants") != 1 {
			t.Errorf("%d succeeded and %d were rejected; there are %d agents, %d registrants",
				admitted.Load(), rejected.Load(), countRows(t, b, "agents"), countRows(t, b, "registrants"))
		}
		testutil.Must(t, registerFrom(t.Context(), b, "2001:db8:1:3::1", ""))
		testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", ""))
		b.VerifyLedger()
	})
	t.Run("a restart does not reset the limit", func(t *testing.T) {
		t.Parallel()
		address := services.NewDatabase(t)
		t.Run("before the restart", func(t *testing.T) { //nolint:paralleltest // one after the other
			b := newRateLimitedMarket(t, address)
			for range 60 {
				testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", ""))
			}
		})
		t.Run("after the restart", func(t *testing.T) { //nolint:paralleltest // one after the other
			wantCode(t, registerFrom(t.Context(), newRateLimitedMarket(t, address), "192.0.2.1", ""), models.RateLimited)
		})
	})
	t.Run("replays and failures do not count, and a rejected request writes nothing", func(t *testing.T) {
		t.Parallel()
		b := newRateLimitedMarket(t, services.NewDatabase(t))
		for range 100 {
			testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", "the same key for all"))
		}
		var before, after models.Registrant
		testutil.Must(t, b.DB.Read(t.Context()).Take(&before).Error)
		if before.FullAt.AsTime() != b.Clock.Now().Add(time.Minute) {
			t.Errorf("after one registration and 99 replays the quota is full at %s", before.FullAt)
		}
		b.FakeWebhooks.SubscribeFunc = func() error { return errBroken }
		ctx := auth.WithRequest(t.Context(), &auth.Request{Address: "192.0.2.1"})
		if _, err := b.Register(ctx, market.RegisterAgentInput{Name: "A", WebhookURL: new("https://a.example")}); !errors.Is(err, errBroken) {
			t.Fatalf("got %v", err)
		}
		testutil.Must(t, b.DB.Read(t.Context()).Take(&after).Error)
		if after != before {
			t.Errorf("a failed registration changed %v to %v", before, after)
		}
		b.Settings.RegistrationBurst = 1
		wantCode(t, registerFrom(t.Context(), b, "192.0.2.1", "another key, 16 long"), models.RateLimited)
		testutil.Must(t, b.DB.Read(t.Context()).Take(&after).Error)
		if after != before || countRows(t, b, "agents") != 1 || countRows(t, b, "idempotency_keys") != 1 || countRows(t, b, "transfers") != 1 {
			t.Errorf("a rejected request left %v for %v, %d agents, %d keys and %d transfers", after, before,
				countRows(t, b, "agents"), countRows(t, b, "idempotency_keys"), countRows(t, b, "transfers"))
		}
	})
	t.Run("a blocked network is rejected without the database until its Retry-After", func(t *testing.T) {
		t.Parallel()
		b := newRateLimitedMarket(t, services.NewDatabase(t))
		b.Settings.RegistrationBurst = 1
		testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", "the first one, with a key"))
		wantCode(t, registerFrom(t.Context(), b, "192.0.2.1", ""), models.RateLimited)
		testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error { return tx.Exec("DELETE FROM registrants").Error })) // the database would allow it
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
	t.Run("a network is pruned when its burst is full again", func(t *testing.T) {
		t.Parallel()
		b := newRateLimitedMarket(t, services.NewDatabase(t))
		for range 2 {
			testutil.Must(t, registerFrom(t.Context(), b, "192.0.2.1", ""))
		}
		b.Clock.Advance(2*time.Minute - time.Microsecond)
		mustPrune(t, b)
		if countRows(t, b, "registrants") != 1 {
			t.Error("it is pruned too early")
		}
		b.Clock.Advance(time.Microsecond)
		mustPrune(t, b)
		if countRows(t, b, "registrants") != 0 {
			t.Error("it is not pruned")
		}
	})
}

// TestRegister_rateLimitProperty: an attempt succeeds exactly if no period that ends now
// would then have more registrations than a burst plus one per minute.
func TestRegister_rateLimitProperty(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	b.Settings.StartingCredits = 0
	const every, burst = time.Minute, 3
	b.Settings.RegistrationInterval, b.Settings.RegistrationBurst = every, burst
	networks := 0
	rapid.Check(t, func(r *rapid.T) {
		networks++
		address := fmt.Sprintf("10.0.%d.%d", networks/256, networks%256)
		var admitted []time.Time
		for range rapid.IntRange(1, 20).Draw(r, "attempts") {
			b.Clock.Advance(time.Duration(rapid.IntRange(0, 100).Draw(r, "seconds")) * time.Second)
			now := b.Clock.Now()
			wait := time.Duration(0) // until every period has room
			for i, since := range admitted {
				wait = max(wait, time.Duration(len(admitted)-i+1-burst)*every-now.Sub(since))
			}
			err := registerFrom(t.Context(), b, address, "")
			switch {
			case wait == 0 && err == nil:
				admitted = append(admitted, now)
			case wait == 0 || models.CodeOf(err) != models.RateLimited || models.AsError(err).RetryAfter != wait:
				r.Fatalf("after %d registrations: got %v, want a Retry-After of %s", len(admitted), err, wait)
			}
		}
	})
}

// TestRegister_ownerEmail: an email address is kept as it was sent, or it is rejected.
func TestRegister_ownerEmail(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	for _, email := range []string{"", "bob@example.com", "bob+market@mail.example.com", `"bob b"@example.com`, "bøb@exämple.com"} {
		agent, err := b.Register(t.Context(), market.RegisterAgentInput{Name: "A", OwnerEmail: &email})
		testutil.Must(t, err)
		testutil.Equal(t, "the address", agent.Agent.OwnerEmail, email)
	}
	for _, email := range []string{
		"Bob <bob@example.com>", "<bob@example.com>", "bob@example.com (Bob)", `"Bob" <bob@example.com>`, " bob@example.com", "bob@example.com\n",
		"bob@example.com, eve@example.com", "mailto:bob@example.com", "bob", "bob@", "@example.com",
	} {
		_, err := b.Register(t.Context(), market.RegisterAgentInput{Name: "A", OwnerEmail: &email})
		if models.CodeOf(err) != models.InvalidInput || models.AsError(err).Field != "ownerEmail" {
			t.Errorf("%q: got %v, want INVALID_INPUT for ownerEmail", email, err)
		}
	}
}
