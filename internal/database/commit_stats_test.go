package database_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestObserveCommits: who counts is told of each commit with as many changes as it kept.
func TestObserveCommits(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	var told []database.CommitStats
	h.ObserveCommits(func(c database.CommitStats) { told = append(told, c) }) // the writer calls it, one after another
	for _, id := range []string{"second", "third"} {
		h.queueWrite(t, "", func(tx *database.Tx) error { return insertAgent(tx, id) })
	}
	h.queueWrite(t, "it is refused", func(*database.Tx) error { return errors.New("it is refused") })
	h.finish()
	if len(told) != 1 || told[0].Changes != 3 || told[0].Err != nil || told[0].Duration <= 0 {
		t.Errorf("told of %+v, want one commit of three changes", told)
	}
}

// TestObserveCommits_bothEngines: on either engine every change that is kept is counted once,
// however many are written at once.
func TestObserveCommits_bothEngines(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), services.NewDatabase(t), slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	var mu sync.Mutex
	changes := 0
	db.ObserveCommits(func(c database.CommitStats) {
		mu.Lock()
		defer mu.Unlock()
		changes += c.Changes
		if c.Err != nil || c.Duration <= 0 {
			t.Errorf("told of %+v", c)
		}
	})
	var group sync.WaitGroup
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, id := range ids {
		group.Go(func() {
			testutil.Must(t, db.Write(context.WithoutCancel(t.Context()), func(tx *database.Tx) error { return insertAgent(tx, id) }))
		})
	}
	group.Wait()
	mu.Lock()
	defer mu.Unlock()
	if changes != len(ids) {
		t.Errorf("%d changes were counted, %d were kept", changes, len(ids))
	}
	if inUse, most := db.Connections(); inUse < 0 || inUse > most || most < 1 {
		t.Errorf("%d connections of %d are in use", inUse, most)
	}
}

// TestReadQueueStats counts what waits, and for how long it has been due.
func TestReadQueueStats(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), services.NewDatabase(t), slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		tx.Enqueue(job{Name: "old"}, &river.InsertOpts{Queue: "a", ScheduledAt: time.Now().Add(-time.Hour)})
		tx.Enqueue(job{Name: "new"}, &river.InsertOpts{Queue: "a"})
		tx.Enqueue(job{Name: "later"}, &river.InsertOpts{Queue: "b", ScheduledAt: time.Now().Add(time.Hour)})
		return nil
	}))
	found := map[string]database.QueueStats{}
	testutil.Must(t, db.Snapshot(t.Context(), func(state *database.Snapshot) error {
		queues, err := database.ReadQueueStats(state)
		for _, q := range queues {
			found[q.Queue+" "+string(q.State)] = q
		}
		return err
	}))
	due, later := found["a "+string(rivertype.JobStateAvailable)], found["b "+string(rivertype.JobStateScheduled)]
	if old, ok := found["a "+string(rivertype.JobStateScheduled)]; ok { // the engine has yet to say that it is due
		due.Jobs, due.Lag = due.Jobs+old.Jobs, old.Lag
	}
	if due.Jobs != 2 || due.Lag < 59*time.Minute || due.Lag > 61*time.Minute {
		t.Errorf("due are %+v", found)
	}
	if later.Jobs != 1 || later.Lag != 0 {
		t.Errorf("later are %+v", found)
	}
}
