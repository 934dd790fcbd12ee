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
)

// TestOnCommits: who counts is told of each commit with as many changes as it kept.
func TestOnCommits(t *testing.T) {
	t.Parallel()
	h := hold(t, "")
	var told []database.Commit
	h.OnCommits(func(c database.Commit) { told = append(told, c) }) // the writer calls it, one after another
	for _, id := range []string{"second", "third"} {
		h.write(t, "", func(tx *database.Tx) error { return add(tx, id) })
	}
	h.write(t, "it is refused", func(*database.Tx) error { return errors.New("it is refused") })
	h.ended()
	if len(told) != 1 || told[0].Changes != 3 || told[0].Err != nil || told[0].Took <= 0 {
		t.Errorf("told of %+v, want one commit of three changes", told)
	}
}

// TestOnCommits_engines: on either engine every change that is kept is counted once,
// however many are written at once.
func TestOnCommits_engines(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), services.Address(t), slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	var mu sync.Mutex
	changes := 0
	db.OnCommits(func(c database.Commit) {
		mu.Lock()
		defer mu.Unlock()
		changes += c.Changes
		if c.Err != nil || c.Took <= 0 {
			t.Errorf("told of %+v", c)
		}
	})
	var group sync.WaitGroup
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, id := range ids {
		group.Go(func() {
			must(t, db.Write(context.WithoutCancel(t.Context()), func(tx *database.Tx) error { return add(tx, id) }))
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

// TestQueues counts what waits, and for how long it has been due.
func TestQueues(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), services.Address(t), slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		tx.Enqueue(job{Of: "old"}, &river.InsertOpts{Queue: "a", ScheduledAt: time.Now().Add(-time.Hour)})
		tx.Enqueue(job{Of: "new"}, &river.InsertOpts{Queue: "a"})
		tx.Enqueue(job{Of: "later"}, &river.InsertOpts{Queue: "b", ScheduledAt: time.Now().Add(time.Hour)})
		return nil
	}))
	found := map[string]database.Queued{}
	must(t, db.Snapshot(t.Context(), func(state *database.State) error {
		queues, err := database.Queues(state)
		for _, q := range queues {
			found[q.Queue+" "+string(q.State)] = q
		}
		return err
	}))
	due, later := found["a "+string(rivertype.JobStateAvailable)], found["b "+string(rivertype.JobStateScheduled)]
	if old, ok := found["a "+string(rivertype.JobStateScheduled)]; ok { // the engine has yet to say that it is due
		due.Jobs, due.Late = due.Jobs+old.Jobs, old.Late
	}
	if due.Jobs != 2 || due.Late < 59*time.Minute || due.Late > 61*time.Minute {
		t.Errorf("due are %+v", found)
	}
	if later.Jobs != 1 || later.Late != 0 {
		t.Errorf("later are %+v", found)
	}
}
