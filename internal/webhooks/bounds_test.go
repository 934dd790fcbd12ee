package webhooks

import (
	"net/http"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// due returns a delivery that has not been tried, and whose it is.
func due(t *testing.T) (b *bundle, worker string, d models.Delivery) {
	t.Helper()
	b = open(t, settings{})
	worker, _ = b.subscriber(t, "https://hooks.example.com/", "research")
	b.matched(t, b.post(t, b.agent(t), "research"))
	return b, worker, b.deliveries(t, worker)[0]
}

// TestAttempts_kept: however often its owner has a delivery sent again, the last
// tries of it are kept and no more.
func TestAttempts_kept(t *testing.T) {
	t.Parallel()
	b, worker, d := due(t)
	for number := 1; number <= maxAttempts+5; number++ {
		must(t, b.settle(t.Context(), b.hook(t, worker), &d, number, answer{status: http.StatusOK}))
		b.write(t, func(tx *database.Tx) error {
			_, err := b.Redeliver(tx, worker, d.ID)
			return err
		})
	}
	kept := b.attempts(t, d.ID)
	if len(kept) != maxAttempts || kept[0].Number != 6 {
		t.Errorf("%d tries are kept, the first is number %d", len(kept), kept[0].Number)
	}
}

// TestRedeliver_waiting: a delivery that waits for its turn is not queued again.
func TestRedeliver_waiting(t *testing.T) {
	t.Parallel()
	b, worker, d := due(t)
	for range 3 {
		b.write(t, func(tx *database.Tx) error {
			_, err := b.Redeliver(tx, worker, d.ID)
			return err
		})
	}
	equal(t, "jobs", b.queued(t, firstQueue)+b.queued(t, laterQueue), 1)
}

// TestRedeliver_failing: what is sent again to an endpoint that fails waits where it
// holds up no other's first try.
func TestRedeliver_failing(t *testing.T) {
	t.Parallel()
	b, worker, d := due(t)
	must(t, b.settle(t.Context(), b.hook(t, worker), &d, 1, answer{status: http.StatusInternalServerError, problem: "answered 500"}))
	first, later := b.queued(t, firstQueue), b.queued(t, laterQueue)
	b.write(t, func(tx *database.Tx) error {
		_, err := b.Redeliver(tx, worker, d.ID)
		return err
	})
	equal(t, "first tries", b.queued(t, firstQueue), first)
	equal(t, "later ones", b.queued(t, laterQueue), later+1)
}

// TestDrop_resumed: a delivery whose webhook was resumed, after it was seen to be
// suspended, is not given up.
func TestDrop_resumed(t *testing.T) {
	t.Parallel()
	b, worker, d := due(t)
	if err := b.drop(t.Context(), &d, suspendedReason); err == nil {
		t.Error("its job ends")
	}
	equal(t, "status", b.deliveries(t, worker)[0].Status, models.DeliveryPending)
}
