package market_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestPrune: after a month, concurrent prunes leave only the new events. Tasks, agents,
// balances and totals are unchanged, and later operations work as before.
func TestPrune(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	b.Settings.EventRetention = 30 * 24 * time.Hour
	poster, worker := b.NewAgent("x"), b.NewAgent("x")
	done := b.NewTask(poster, 25, "x")
	_, err := b.Accept(t.Context(), worker, done.ID)
	testutil.Must(t, err)
	_, err = b.Complete(t.Context(), worker, done.ID, "done")
	testutil.Must(t, err)
	b.NewTask(poster, 5)
	keyed := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: "once"})
	_, err = b.Post(keyed, poster, market.PostTaskInput{Title: "T", Description: "D", Budget: 2})
	testutil.Must(t, err)
	mustPrune(t, b)
	if n := countEvents(t, b); n != 11 {
		t.Errorf("the log has %d events", n)
	}
	wantTotals(t, b, 200, 3)

	b.Clock.Advance(31 * 24 * time.Hour)
	young := b.NewTask(poster, 2)
	var group sync.WaitGroup
	for range 3 { // like replicas
		group.Go(func() {
			mustPrune(t, b)
		})
	}
	group.Wait()
	if n := countEvents(t, b); n != 2 { // task.posted and wallet.changed
		t.Errorf("the log has %d events", n)
	}
	wantTotals(t, b, 200, 3)
	if report := b.VerifyLedger(); report.Tasks != 4 || report.Transfers != 9 {
		t.Errorf("the ledger has %d tasks and %d transfers", report.Tasks, report.Transfers)
	}
	var keys int64
	testutil.Must(t, b.DB.Read(t.Context()).Model(&models.IdempotencyKey{}).Count(&keys).Error)
	if keys != 0 {
		t.Errorf("%d idempotency keys are left", keys)
	}
	_, err = b.Accept(t.Context(), worker, young.ID)
	testutil.Must(t, err)
	_, err = b.Complete(t.Context(), worker, young.ID, "done")
	testutil.Must(t, err)
	testutil.Must(t, b.Sweep(t.Context())) // expires the open tasks
	wantTotals(t, b, 200, 4)
	b.VerifyLedger()
}

// TestPrune_keepsForever: a retention of 0 keeps all events, and a delivery keeps the events
// from its own on.
func TestPrune_keepsForever(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	b.NewTask(b.NewAgent(), 5)
	b.Clock.Advance(1000 * 24 * time.Hour)
	mustPrune(t, b)
	if n := countEvents(t, b); n != 3 {
		t.Errorf("the log has %d events", n)
	}
	b.Settings.EventRetention = 24 * time.Hour
	var first int64
	testutil.Must(t, b.DB.Read(t.Context()).Raw("SELECT id FROM events WHERE kind = 'task.posted'").Scan(&first).Error)
	b.FakeWebhooks.OldestNeededFunc = func() (int64, error) { return first, nil }
	mustPrune(t, b)
	if n := countEvents(t, b); n != 2 {
		t.Errorf("the log has %d events, want 2: a delivery refers to the second", n)
	}
	b.FakeWebhooks.OldestNeededFunc = func() (int64, error) { return 0, errBroken }
	if err := b.Prune(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	if n := countEvents(t, b); n != 2 {
		t.Errorf("the log has %d events, want 2: the oldest needed one is unknown", n)
	}
}

// mustPrune assigns cursors, as a server does, and prunes.
func mustPrune(t *testing.T, b *markettest.Bundle) {
	t.Helper()
	_, err := b.DB.AssignCursors(t.Context(), false)
	if err = errors.Join(err, b.Prune(t.Context())); err != nil {
		t.Error(err)
	}
}

// countEvents returns the number of events in the log.
func countEvents(t *testing.T, b *markettest.Bundle) (n int64) {
	t.Helper()
	testutil.Must(t, b.DB.Read(t.Context()).Model(&models.Event{}).Count(&n).Error)
	return n
}

func wantTotals(t *testing.T, b *markettest.Bundle, issued, fees models.Credits) {
	t.Helper()
	_, err := b.DB.AssignCursors(t.Context(), false)
	testutil.Must(t, err)
	gotIssued, gotFees, err := ledger.Totals(b.DB.Read(t.Context()))
	testutil.Must(t, err)
	if gotIssued != issued || gotFees != fees {
		t.Errorf("issued %d and fees %d, want %d and %d", gotIssued, gotFees, issued, fees)
	}
}

var errBroken = errors.New("broken")
