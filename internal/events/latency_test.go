package events

import (
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestOnDispatch checks that the age of an event is reported if a feed is open, and
// not otherwise.
func TestOnDispatch(t *testing.T) {
	t.Parallel()
	b := open(t)
	var latency, reports atomic.Int64
	b.OnDispatch(func(d time.Duration) { latency.Store(int64(d)); reports.Add(1) })
	b.waitDispatched(b.append(3))
	if n := reports.Load(); n != 0 {
		t.Errorf("%d events were reported without a feed", n)
	}
	sub := b.subscribe(t.Context(), acceptAll, nil)
	testutil.Must(t, b.db.Write(t.Context(), func(tx *database.Tx) error {
		event := newNamedEvent("old")
		event.CreatedAt = models.NewTime(time.Now().Add(-time.Hour))
		return b.Append(tx, event)
	}))
	mustReceive(t, sub.C)
	testutil.Eventually(t, "the event to be reported", func() bool { return reports.Load() == 1 })
	if d := time.Duration(latency.Load()); d < time.Hour || d > time.Hour+testutil.Timeout {
		t.Errorf("the latency of an event created an hour ago is %s", d)
	}
}
