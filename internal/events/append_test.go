package events

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// TestAppend appends from many concurrent transactions, some of which fail or panic
// afterwards. A follower gets each committed event once, in cursor order, and no
// event that was rolled back.
func TestAppend(t *testing.T) {
	t.Parallel()
	b := open(t)
	const writers, each = 8, 40
	errRollback := errors.New("roll back")
	fails := func(i int) bool { return i%3 == 1 }
	panics := func(i int) bool { return i%7 == 5 }

	var group sync.WaitGroup
	var mu sync.Mutex
	committed := map[string]int64{} // event IDs by name
	for w := range writers {
		group.Go(func() {
			for i := range each {
				var written []*models.Event
				err := b.db.Write(t.Context(), func(tx *database.Tx) error {
					for _, part := range []string{"a", "b"} {
						event := newNamedEvent(fmt.Sprintf("%d/%d/%s", w, i, part))
						if err := b.Append(tx, event); err != nil {
							return err
						}
						written = append(written, event)
					}
					switch {
					case panics(i):
						panic("the writer panics")
					case fails(i):
						return errRollback
					}
					return nil
				})
				if failed := fails(i) || panics(i); (err != nil) != failed {
					t.Errorf("transaction %d/%d ended with %v", w, i, err)
				}
				if err == nil {
					mu.Lock()
					for _, event := range written {
						committed[*event.TransferID] = event.ID
					}
					mu.Unlock()
				}
			}
		})
	}
	follower := b.newReader(0)
	want := 0
	for i := range each {
		if !fails(i) && !panics(i) {
			want += 2 * writers
		}
	}
	got := follower.take(want)
	group.Wait()
	last := int64(0)
	for _, event := range got {
		id, ok := committed[*event.TransferID]
		if !ok || id != event.ID || event.Seq <= last {
			t.Errorf("got %s (ID %d) at cursor %d after %d; its writer got ID %d (committed: %t)", *event.TransferID, event.ID, event.Seq, last, id, ok)
		}
		delete(committed, *event.TransferID)
		last = event.Seq
	}
	if len(committed) > 0 {
		t.Errorf("missed %v", committed)
	}
	next := b.append(1)
	wantCursors(t, follower.take(1), next, next) // no other event in between
}

// TestEventsAreImmutable checks that the database rejects updates of events.
func TestEventsAreImmutable(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(1)
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("UPDATE events SET kind = ?", models.TaskPosted).Error
	})
	if err == nil {
		t.Error("an event was updated")
	}
}

func TestOpen_continuesCursors(t *testing.T) {
	t.Parallel()
	before := open(t)
	last := before.append(7)
	before.stop()

	after := openAt(t, before.path)
	if after.Head() != last {
		t.Errorf("head is %d, want %d", after.Head(), last)
	}
	r := after.newReader(last - 2)
	live := after.subscribe(t.Context(), acceptAll, nil)
	if next := after.append(1); next != last+1 {
		t.Errorf("the next cursor is %d, want %d", next, last+1)
	}
	wantCursors(t, r.take(3), last-1, last+1)
	if event, ok := mustReceive(t, live.C); !ok || event.Seq != last+1 {
		t.Errorf("a live subscriber got %d first, want %d", event.Seq, last+1)
	}
}

// TestAppend_crash opens the files that a crash in the middle of a transaction leaves.
// They hold the committed events and not the uncommitted one.
func TestAppend_crash(t *testing.T) {
	t.Parallel()
	b := openAt(t, filepath.Join(t.TempDir(), "log.db"))
	for range 5 {
		b.append(3)
	}
	errCrash := errors.New("crash")
	left := filepath.Join(t.TempDir(), "left.db")
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		if err := b.Append(tx, newNamedEvent("uncommitted")); err != nil {
			return err
		}
		for _, suffix := range []string{"", "-wal"} {
			content, err := os.ReadFile(b.path + suffix)
			if err != nil {
				return err
			}
			if err := os.WriteFile(left+suffix, content, 0o600); err != nil {
				return err
			}
		}
		return errCrash
	})
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	after := openAt(t, left)
	r := after.newReader(0)
	wantCursors(t, r.take(15), 1, 15)
	if next := after.append(1); next != 16 {
		t.Errorf("the next cursor is %d, want 16", next)
	}
	wantCursors(t, r.take(1), 16, 16)
}
