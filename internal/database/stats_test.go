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

// TestObserveCommits checks that a commit is observed with its number of changes.
func TestObserveCommits(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	var commits []database.CommitStats
	h.ObserveCommits(func(c database.CommitStats) { commits = append(commits, c) }) // the writer calls it serially
	for _, id := range []string{"second", "third"} {
		h.queueWrite(t, "", func(tx *database.Tx) error { return insertAgent(tx, id) })
	}
	h.queueWrite(t, "it fails", func(*database.Tx) error { return errors.New("it fails") })
	h.finish()
	if len(commits) != 1 || commits[0].Changes != 3 || commits[0].Err != nil || commits[0].Duration <= 0 {
		t.Errorf("observed %+v, want one commit of three changes", commits)
	}
}

// TestObserveCommits_bothEngines checks on both engines that each committed write is
// counted once, with concurrent writes.
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
			t.Errorf("observed %+v", c)
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
		t.Errorf("observed %d changes, want %d", changes, len(ids))
	}
	if inUse, limit := db.Connections(); inUse < 0 || inUse > limit || limit < 1 {
		t.Errorf("%d connections of %d are in use", inUse, limit)
	}
}

// TestReadQueueStats checks the number of jobs per queue and state, and their lag.
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
	stats := map[string]database.QueueStats{}
	testutil.Must(t, db.Snapshot(t.Context(), func(snapshot *database.Snapshot) error {
		queues, err := database.ReadQueueStats(snapshot)
		for _, q := range queues {
			stats[q.Queue+" "+string(q.State)] = q
		}
		return err
	}))
	due, later := stats["a "+string(rivertype.JobStateAvailable)], stats["b "+string(rivertype.JobStateScheduled)]
	if scheduled, ok := stats["a "+string(rivertype.JobStateScheduled)]; ok { // River has not made it available yet
		due.Jobs, due.Lag = due.Jobs+scheduled.Jobs, scheduled.Lag
	}
	if due.Jobs != 2 || due.Lag < 59*time.Minute || due.Lag > 61*time.Minute {
		t.Errorf("stats of due jobs are %+v", stats)
	}
	if later.Jobs != 1 || later.Lag != 0 {
		t.Errorf("stats of later jobs are %+v", stats)
	}
}
