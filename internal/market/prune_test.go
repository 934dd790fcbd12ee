package market_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/models"
)

// TestPrune: a month later the log has what is young alone, tasks, agents and
// credits are as they were, and the books still balance. What follows is the same
// whether the log was pruned or not.
func TestPrune(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	b.Settings.KeepEvents = 30 * 24 * time.Hour
	poster, worker := b.Agent("x"), b.Agent("x")
	done := b.Posted(poster, 25, "x")
	_, err := b.Accept(t.Context(), worker, done.ID)
	must(t, err)
	_, err = b.Complete(t.Context(), worker, done.ID, "done")
	must(t, err)
	b.Posted(poster, 5)
	keyed := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: "once"})
	_, err = b.Post(keyed, poster, market.PostTaskInput{Title: "T", Description: "D", Budget: 2})
	must(t, err)
	prune(t, b)
	if n := logged(t, b); n != 11 {
		t.Errorf("the log has %d events", n)
	}
	wantTotals(t, b, 200, 3)

	b.Clock.Advance(31 * 24 * time.Hour)
	young := b.Posted(poster, 2)
	var group sync.WaitGroup
	for range 3 { // as replicas do
		group.Go(func() {
			prune(t, b)
		})
	}
	group.Wait()
	if n := logged(t, b); n != 2 { // task.posted and wallet.changed
		t.Errorf("the log has %d events", n)
	}
	wantTotals(t, b, 200, 3)
	if report := b.Verified(); report.Tasks != 4 || report.Transfers != 9 {
		t.Errorf("the books have %d tasks and %d transfers", report.Tasks, report.Transfers)
	}
	var keys int64
	must(t, b.DB.Read(t.Context()).Model(&models.IdempotencyKey{}).Count(&keys).Error)
	if keys != 0 {
		t.Errorf("%d keys are remembered", keys)
	}
	_, err = b.Accept(t.Context(), worker, young.ID)
	must(t, err)
	_, err = b.Complete(t.Context(), worker, young.ID, "done")
	must(t, err)
	must(t, b.Sweep(t.Context())) // the open ones expired meanwhile
	wantTotals(t, b, 200, 4)
	b.Verified()
}

// TestPrune_keepsForEver is what 0 means; a delivery keeps its event.
func TestPrune_keepsForEver(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	b.Posted(b.Agent(), 5)
	b.Clock.Advance(1000 * 24 * time.Hour)
	prune(t, b)
	if n := logged(t, b); n != 3 {
		t.Errorf("the log has %d events", n)
	}
	b.Settings.KeepEvents = 24 * time.Hour
	var first int64
	must(t, b.DB.Read(t.Context()).Raw("SELECT id FROM events WHERE kind = 'task.posted'").Scan(&first).Error)
	b.Records = needs(first)
	prune(t, b)
	if n := logged(t, b); n != 2 {
		t.Errorf("the log has %d events, and a delivery names the second", n)
	}
	b.Records = broken{}
	if err := b.Prune(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	if n := logged(t, b); n != 2 {
		t.Errorf("the log has %d events, and nobody knows what is needed", n)
	}
}

// prune prunes as a server does that follows its log.
func prune(t *testing.T, b *markettest.Bundle) {
	t.Helper()
	_, err := b.DB.NumberEvents(t.Context(), false)
	if err = errors.Join(err, b.Prune(t.Context())); err != nil {
		t.Error(err)
	}
}

// logged returns how many events the log has.
func logged(t *testing.T, b *markettest.Bundle) (n int64) {
	t.Helper()
	must(t, b.DB.Read(t.Context()).Model(&models.Event{}).Count(&n).Error)
	return n
}

func wantTotals(t *testing.T, b *markettest.Bundle, issued, fees models.Credits) {
	t.Helper()
	_, err := b.DB.NumberEvents(t.Context(), false)
	must(t, err)
	gotIssued, gotFees, err := ledger.Totals(b.DB.Read(t.Context()))
	must(t, err)
	if gotIssued != issued || gotFees != fees {
		t.Errorf("%d were issued and %d earned, want %d and %d", gotIssued, gotFees, issued, fees)
	}
}

// needs is what goes by an event.
type needs int64

func (needs) Prune(context.Context) error            { return nil }
func (n needs) Needs(context.Context) (int64, error) { return int64(n), nil }

var errBroken = errors.New("broken")

// broken cannot be asked what it needs.
type broken struct{}

func (broken) Prune(context.Context) error          { return nil }
func (broken) Needs(context.Context) (int64, error) { return 0, errBroken }
