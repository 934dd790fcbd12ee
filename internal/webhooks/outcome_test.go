package webhooks

import (
	"net/http"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
)

// TestAttempts_keepsLatest checks that only the latest attempts of a delivery are
// stored, however often it is redelivered.
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
	stored := b.attempts(t, d.ID)
	if len(stored) != maxStoredAttempts || stored[0].Number != 6 {
		t.Errorf("%d attempts are stored, the first is number %d", len(stored), stored[0].Number)
	}
}
