package market_test

import (
	"sync"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/models"
)

// runConcurrently calls fn(0) to fn(n-1) concurrently.
func runConcurrently(n int, fn func(i int)) {
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-start
			fn(i)
		})
	}
	close(start)
	group.Wait()
}

func mustAccept(t *testing.T, b *markettest.Bundle, worker auth.Actor, task models.Task) {
	t.Helper()
	if _, err := b.Accept(t.Context(), worker, task.ID); err != nil {
		t.Fatal(err)
	}
}

func mustSweep(t *testing.T, b *markettest.Bundle) {
	t.Helper()
	if err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantStatus(t *testing.T, b *markettest.Bundle, task models.Task, want models.Status) {
	t.Helper()
	var row models.Task
	if err := b.DB.Read(t.Context()).Take(&row, "id = ?", task.ID).Error; err != nil || row.Status != want {
		t.Errorf("task is %s (%v), want %s", row.Status, err, want)
	}
}

func wantBalances(t *testing.T, b *markettest.Bundle, agent auth.Actor, available, held models.Credits) {
	t.Helper()
	if a, h := b.Balances(agent); a != available || h != held {
		t.Errorf("balance is %d with %d held, want %d and %d", a, h, available, held)
	}
}

func wantCode(t *testing.T, err error, want models.Code) {
	t.Helper()
	if err == nil || models.CodeOf(err) != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}
