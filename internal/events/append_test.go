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

// TestAppend has many writers append at once, some of whose transactions fail
// or panic after they appended. A follower sees what was committed, each event
// once, in the order of the cursors, and nothing that was rolled back.
func TestAppend(t *testing.T) {
	t.Parallel()
	b := open(t)
	const writers, each = 8, 40
	errTaken := errors.New("the writer changed its mind")
	fails := func(i int) bool { return i%3 == 1 }
	panics := func(i int) bool { return i%7 == 5 }

	var group sync.WaitGroup
	var mu sync.Mutex
	committed := map[string]int64{} // cursors by name
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
						panic("the writer fell over")
					case fails(i):
						return errTaken
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
			t.Errorf("heard %s (%d) at %d after %d; its writer was told %d (committed: %t)", *event.TransferID, event.ID, event.Seq, last, id, ok)
		}
		delete(committed, *event.TransferID)
		last = event.Seq
	}
	if len(committed) > 0 {
		t.Errorf("never heard of %v", committed)
	}
	next := b.append(1)
	wantCursors(t, follower.take(1), next, next) // nothing was left over in between
}

// TestEventsAreImmutable: what happened cannot be made to have been otherwise.
func TestEventsAreImmutable(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(1)
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("UPDATE events SET kind = ?", models.TaskPosted).Error
	})
	if err == nil {
		t.Error("an event was changed")
	}
}

func TestOpen_continuesCursors(t *testing.T) {
	t.Parallel()
	before := open(t)
	seen := before.append(7)
	before.stop()

	after := openAt(t, before.path)
	if after.Head() != seen {
		t.Errorf("the log begins at %d, want %d", after.Head(), seen)
	}
	r := after.newReader(seen - 2)
	live := after.Subscribe(t.Context(), acceptAll, nil)
	if next := after.append(1); next != seen+1 {
		t.Errorf("the next cursor is %d, want %d", next, seen+1)
	}
	wantCursors(t, r.take(3), seen-1, seen+1)
	if event, ok := mustReceive(t, live.C); !ok || event.Seq != seen+1 {
		t.Errorf("a live subscriber heard %d first, want %d", event.Seq, seen+1)
	}
}

// TestAppend_crash takes the files as a process leaves them that dies in the middle of
// a transaction. What was acknowledged is there, what was not is not.
func TestAppend_crash(t *testing.T) {
	t.Parallel()
	b := openAt(t, filepath.Join(t.TempDir(), "log.db"))
	for range 5 {
		b.append(3)
	}
	died := errors.New("died")
	left := filepath.Join(t.TempDir(), "left.db")
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		if err := b.Append(tx, newNamedEvent("unacknowledged")); err != nil {
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
		return died
	})
	if !errors.Is(err, died) {
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
