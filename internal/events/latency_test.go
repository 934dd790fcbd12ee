package events

import (
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestOnDispatch: who counts is told how old an event is when it is handed out to
// those who listen, and nothing of events that nobody listens for.
func TestOnDispatch(t *testing.T) {
	t.Parallel()
	b := open(t)
	var late, told atomic.Int64
	b.OnDispatch(func(by time.Duration) { late.Store(int64(by)); told.Add(1) })
	b.waitDispatched(b.append(3))
	if n := told.Load(); n != 0 {
		t.Errorf("told of %d events that nobody heard", n)
	}
	sub := b.Subscribe(t.Context(), acceptAll, nil)
	testutil.Must(t, b.db.Write(t.Context(), func(tx *database.Tx) error {
		event := newNamedEvent("old")
		event.CreatedAt = models.NewTime(time.Now().Add(-time.Hour))
		return b.Append(tx, event)
	}))
	mustReceive(t, sub.C)
	testutil.Eventually(t, "it to be told of", func() bool { return told.Load() == 1 })
	if by := time.Duration(late.Load()); by < time.Hour || by > time.Hour+testutil.Timeout {
		t.Errorf("the event of an hour ago is %s late", by)
	}
}
