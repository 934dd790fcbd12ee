package webhooks

import (
	"net/http"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// newPendingDelivery returns a delivery that has not been tried, and whose it is.
func newPendingDelivery(t *testing.T) (b *bundle, worker string, d models.Delivery) {
	t.Helper()
	b = open(t, settings{})
	worker, _ = b.addSubscriber(t, "https://hooks.example.com/", "research")
	b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
	return b, worker, b.deliveries(t, worker)[0]
}

// TestAttempts_keepsLatest: however often its owner has a delivery sent again, the last
// tries of it are kept and no more.
func TestAttempts_keepsLatest(t *testing.T) {
	t.Parallel()
	b, worker, d := newPendingDelivery(t)
	for number := 1; number <= maxStoredAttempts+5; number++ {
		testutil.Must(t, b.recordOutcome(t.Context(), b.webhook(t, worker), &d, number, attemptOutcome{status: http.StatusOK}))
		b.write(t, func(tx *database.Tx) error {
			_, err := b.Redeliver(tx, worker, d.ID)
			return err
		})
	}
	kept := b.attempts(t, d.ID)
	if len(kept) != maxStoredAttempts || kept[0].Number != 6 {
		t.Errorf("%d tries are kept, the first is number %d", len(kept), kept[0].Number)
	}
}

// TestRedeliver_alreadyQueued: a delivery that waits for its turn is not queued again.
func TestRedeliver_alreadyQueued(t *testing.T) {
	t.Parallel()
	b, worker, d := newPendingDelivery(t)
	for range 3 {
		b.write(t, func(tx *database.Tx) error {
			_, err := b.Redeliver(tx, worker, d.ID)
			return err
		})
	}
	testutil.Equal(t, "jobs", b.jobsInQueue(t, firstAttemptQueue)+b.jobsInQueue(t, retryQueue), 1)
}

// TestRedeliver_failingEndpoint: what is sent again to an endpoint that fails waits where it
// holds up no other's first try.
func TestRedeliver_failingEndpoint(t *testing.T) {
	t.Parallel()
	b, worker, d := newPendingDelivery(t)
	testutil.Must(t, b.recordOutcome(t.Context(), b.webhook(t, worker), &d, 1, attemptOutcome{status: http.StatusInternalServerError, failureReason: "answered 500"}))
	first, later := b.jobsInQueue(t, firstAttemptQueue), b.jobsInQueue(t, retryQueue)
	b.write(t, func(tx *database.Tx) error {
		_, err := b.Redeliver(tx, worker, d.ID)
		return err
	})
	testutil.Equal(t, "first tries", b.jobsInQueue(t, firstAttemptQueue), first)
	testutil.Equal(t, "later ones", b.jobsInQueue(t, retryQueue), later+1)
}

// TestDrop_resumedWebhook: a delivery whose webhook was resumed, after it was seen to be
// suspended, is not given up.
func TestDrop_resumedWebhook(t *testing.T) {
	t.Parallel()
	b, worker, d := newPendingDelivery(t)
	if err := b.drop(t.Context(), &d, suspendedReason); err == nil {
		t.Error("its job ends")
	}
	testutil.Equal(t, "status", b.deliveries(t, worker)[0].Status, models.DeliveryPending)
}
