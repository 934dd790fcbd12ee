package market_test

import (
	"testing"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestUnknownOutcome: when the database becomes unavailable after a hire was created, the
// error does not say that nothing was changed. Other errors stay as they are.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	const id = "01995000-0000-7000-8000-0000000000a1"
	for _, row := range []struct{ err, want *models.Error }{
		{
			models.Errorf(models.Unavailable, "the database is unavailable; nothing was changed; try again"),
			models.Errorf(models.Unavailable, "task %s was created, but its outcome is unknown; retry with the same Idempotency-Key, or read the task", id),
		},
		{models.Errorf(models.Conflict, "the task is closed"), models.Errorf(models.Conflict, "the task is closed")},
	} {
		got := market.UnknownOutcomeError(id, row.err)
		testutil.Equal(t, "code", models.CodeOf(got), row.want.Code)
		testutil.Equal(t, "message", got.Error(), row.want.Error())
		if len(got.Error()) > 160 {
			t.Errorf("the message has %d characters", len(got.Error()))
		}
	}
}
