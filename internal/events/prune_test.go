package events

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// markCounted includes all events in the ledger totals. Others cannot be pruned.
func (b *bundle) markCounted() {
	b.t.Helper()
	b.exec("UPDATE ledger_sums SET seq = (SELECT MAX(seq) FROM events)")
}

func (b *bundle) exec(statement string) {
	b.t.Helper()
	testutil.Must(b.t, b.tryExec(statement))
}

func (b *bundle) tryExec(statement string) error {
	return b.db.Write(b.t.Context(), func(tx *database.Tx) error { return tx.Exec(statement).Error })
}

// prune deletes the events before a cursor and returns their number.
func (b *bundle) prune(before int64) int {
	b.t.Helper()
	n, err := b.Prune(b.t.Context(), PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: before})
	testutil.Must(b.t, err)
	return n
}

// storedRange returns the first and the last cursor in the log, or 0 if it is empty.
func (b *bundle) storedRange() (first, last int64) {
	b.t.Helper()
	testutil.Must(b.t, b.db.Read(b.t.Context()).Raw("SELECT COALESCE(MIN(seq), 0), COALESCE(MAX(seq), 0) FROM events").Row().Scan(&first, &last))
	return first, last
}

// TestPrune prunes the beginning of the log. Readers after it continue, readers before
// it get CURSOR_EXPIRED, and cursors are not reused, even if the log is empty.
func TestPrune(t *testing.T) {
	t.Parallel()
	b := open(t)
	last := b.append(2*pruneBatchSize + 100)
	b.markCounted()
	if n := b.prune(2*pruneBatchSize + 51); n != 2*pruneBatchSize+50 {
		t.Errorf("pruned %d events", n)
	}
	horizon := int64(2*pruneBatchSize + 50)
	if first, end := b.storedRange(); first != horizon+1 || end != last {
		t.Errorf("the log holds %d to %d", first, end)
	}
	wantCursors(t, b.newReader(horizon).take(50), horizon+1, last)
	for _, after := range []int64{0, 1, horizon - 1} {
		sub := b.subscribe(t.Context(), acceptAll, &after)
		if got := readAll(t, sub); len(got) != 0 {
			t.Errorf("after %d: got %d events", after, len(got))
		}
		wantCode(t, sub.err, models.CursorExpired)
		if err := models.AsError(sub.err); err.Field != "after" || !strings.Contains(err.Message, "subscribe without after") {
			t.Errorf("got %q for field %q", err.Message, err.Field)
		}
	}

	if n := b.prune(math.MaxInt64); n != 50 {
		t.Errorf("pruned %d more events", n)
	}
	b.stop()
	reopened := openAt(t, b.path)
	if reopened.Head() != last {
		t.Errorf("the head of the empty log is %d, want %d", reopened.Head(), last)
	}
	if next := reopened.append(1); next != last+1 {
		t.Errorf("the next cursor is %d, want %d", next, last+1)
	}
	wantCursors(t, reopened.newReader(last).take(1), last+1, last+1)
}

// TestPrune_keepsNeededEvents checks that events that are recent, referenced, or not in
// the ledger totals are kept, and all events after them.
func TestPrune_keepsNeededEvents(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(9)
	b.exec("UPDATE ledger_sums SET seq = 8")
	var id int64
	testutil.Must(t, b.db.Read(t.Context()).Raw("SELECT id FROM events WHERE seq = 6").Scan(&id).Error)
	for _, row := range []struct {
		name   string
		bounds PruneBounds
		first  int64 // cursor that is left
	}{
		{"no event is old", PruneBounds{Time: 0, ID: math.MaxInt64, Seq: math.MaxInt64}, 1},
		{"the fourth is not in the totals", PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: 4}, 4},
		{"the sixth has a delivery", PruneBounds{Time: math.MaxInt64, ID: id, Seq: math.MaxInt64}, 6},
	} {
		if _, err := b.Prune(t.Context(), row.bounds); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		if first, last := b.storedRange(); first != row.first || last != 9 {
			t.Errorf("%s: the log holds %d to %d, want %d to 9", row.name, first, last, row.first)
		}
	}
	if n, err := b.Prune(t.Context(), PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: math.MaxInt64}); err == nil {
		t.Errorf("pruned %d events that are not in the ledger totals", n)
	}
	if first, _ := b.storedRange(); first != 6 {
		t.Errorf("after a failed Prune the log starts at %d", first)
	}
}

// TestEvents_historyIsProtected checks that the database only allows the deletion of old
// events at the beginning of the log, after the ledger totals include them. Deleted
// events cannot be replaced, and the horizon cannot move back.
func TestEvents_historyIsProtected(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(8)
	recent := newNamedEvent("recent")
	recent.CreatedAt = models.NewTime(time.Now())
	testutil.Must(t, b.db.Write(t.Context(), func(tx *database.Tx) error { return b.Append(tx, recent) }))
	_, err := b.db.AssignCursors(t.Context(), false)
	testutil.Must(t, err)
	b.append(1)
	b.exec("UPDATE ledger_sums SET seq = 10")
	b.prune(4)
	move := func(seq int64, at string) string {
		return fmt.Sprintf("UPDATE event_horizon SET seq = %d, created_at = %s", seq, at)
	}
	yearAgo := strconv.FormatInt(time.Now().AddDate(-1, 0, 0).UnixMicro(), 10)
	for _, statement := range []string{
		"DELETE FROM events",
		"DELETE FROM events WHERE seq = 4",
		"DELETE FROM events WHERE seq = 10",
		"UPDATE events SET kind = 'task.posted' WHERE seq = 5",
		move(2, "0"), // backward
		move(3, "0"), // to the same cursor
		move(5, "-1"),
		move(9, yearAgo), // over an event that is newer than the stated time
		move(9, strconv.FormatInt(int64(recent.CreatedAt), 10)), // over a recent event
		move(10, strconv.FormatInt(int64(recent.CreatedAt), 10)),
		move(11, "0"), // past the end
		"UPDATE event_horizon SET one = 2",
		"DELETE FROM event_horizon",
		"INSERT INTO event_horizon (one, seq, created_at) VALUES (2, 9, 0)",
		services.ForEngine("INSERT OR REPLACE INTO event_horizon (one, seq, created_at) VALUES (1, 9, 0)", "TRUNCATE events CASCADE"),
		"UPDATE ledger_sums SET seq = 1",
		"UPDATE ledger_sums SET seq = 11, fees = -1",
		"DELETE FROM ledger_sums",
	} {
		if err := b.tryExec(statement); err == nil {
			t.Errorf("%q succeeded", statement)
		}
	}
	if first, last := b.storedRange(); first != 4 || last != 10 {
		t.Errorf("the log holds %d to %d", first, last)
	}
	if n, err := b.Prune(t.Context(), PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: math.MaxInt64}); err == nil || n != 0 {
		t.Errorf("pruned %d events, with a recent one among them (%v)", n, err)
	}
}

// TestPrune_concurrent prunes with concurrent writers, readers and pruners. No reader
// sees a gap, and no cursor is assigned twice.
func TestPrune_concurrent(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(pageSize)
	var group sync.WaitGroup
	const rounds = 30
	follower := b.newReader(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 { // each reads from the horizon to the end, repeatedly
		group.Go(func() {
			for ctx.Err() == nil {
				r, err := b.cursorRange(ctx)
				if err != nil {
					return
				}
				sub := b.subscribe(ctx, acceptAll, &r.Horizon)
				for want := r.Horizon + 1; want <= r.Last; want++ {
					event, ok := <-sub.C
					if !ok {
						if err := sub.err; err != nil && models.CodeOf(err) != models.CursorExpired {
							t.Errorf("a reader got %v", err)
						}
						break
					}
					if event.Seq != want {
						t.Errorf("event %d follows %d", event.Seq, want-1)
						return
					}
				}
			}
		})
	}
	for range rounds {
		last := b.append(40)
		b.markCounted()
		var pruners sync.WaitGroup
		for range 3 {
			pruners.Go(func() { b.prune(last - 100) })
		}
		pruners.Wait()
	}
	cancel()
	group.Wait()
	last := int64(pageSize + rounds*40)
	if first, end := b.storedRange(); first != last-100 || end != last {
		t.Errorf("the log holds %d to %d, want %d to %d", first, end, last-100, last)
	}
	var got []models.Event
	for event := range follower.sub.C {
		if got = append(got, *event); event.Seq == last {
			break
		}
	}
	if err := follower.sub.err; err != nil && models.CodeOf(err) != models.CursorExpired && models.CodeOf(err) != models.SlowConsumer {
		t.Errorf("the follower got %v", err)
	}
	wantCursors(t, got, 1, int64(len(got)))
}

// TestPrune_crash checks that a crash during Prune leaves all events, or a horizon after
// the deleted ones.
func TestPrune_crash(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(10)
	b.markCounted()
	errCrash := errors.New("crash")
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		if n, err := deleteBatch(tx, PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: 6}); n != 5 || err != nil {
			t.Errorf("deleted %d events: %v", n, err)
		}
		return errCrash
	})
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	wantCursors(t, b.newReader(0).take(10), 1, 10)
	b.prune(6)
	wantCursors(t, b.newReader(5).take(5), 6, 10)
}

// TestFollow_afterStall checks that feeds are closed if Follow stalled for longer than
// events are kept, because they would miss events.
func TestFollow_afterStall(t *testing.T) {
	t.Parallel()
	b := open(t)
	last := b.append(3)
	b.waitDispatched(last)
	live := b.subscribe(t.Context(), acceptAll, nil)
	b.markCounted()
	b.prune(math.MaxInt64)
	b.stopFollow() // a poll that is running would overwrite the state below
	b.mu.Lock()
	b.head, b.caughtUpAt = 1, time.Now().Add(-2*stallThreshold) // the state of a Follow that stalled
	b.mu.Unlock()
	testutil.Must(t, b.poll(t.Context()))
	if got := readAll(t, live); len(got) != 0 {
		t.Errorf("got %d events", len(got))
	}
	wantCode(t, live.err, models.SlowConsumer)
	b.waitDispatched(last)
}
