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

// markCounted has everything in the log counted, without which nothing is taken away.
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

// prune takes away what is before a cursor.
func (b *bundle) prune(before int64) int {
	b.t.Helper()
	n, err := b.Prune(b.t.Context(), PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: before})
	testutil.Must(b.t, err)
	return n
}

// storedRange returns the first and the last cursor in the log, 0 for none.
func (b *bundle) storedRange() (first, last int64) {
	b.t.Helper()
	testutil.Must(b.t, b.db.Read(b.t.Context()).Raw("SELECT COALESCE(MIN(seq), 0), COALESCE(MAX(seq), 0) FROM events").Row().Scan(&first, &last))
	return first, last
}

// TestPrune takes the beginning of the log away. Who has read it goes on, who has
// not is told, and cursors go on where they were, even when nothing is left.
func TestPrune(t *testing.T) {
	t.Parallel()
	b := open(t)
	last := b.append(2*pruneBatchSize + 100)
	b.markCounted()
	if n := b.prune(2*pruneBatchSize + 51); n != 2*pruneBatchSize+50 {
		t.Errorf("%d events were taken away", n)
	}
	horizon := int64(2*pruneBatchSize + 50)
	if first, end := b.storedRange(); first != horizon+1 || end != last {
		t.Errorf("the log has %d to %d", first, end)
	}
	wantCursors(t, b.newReader(horizon).take(50), horizon+1, last)
	for _, after := range []int64{0, 1, horizon - 1} {
		sub := b.Subscribe(t.Context(), acceptAll, &after)
		if got := readAll(t, sub); len(got) != 0 {
			t.Errorf("after %d came %d events", after, len(got))
		}
		wantCode(t, sub.Err(), models.CursorExpired)
		if refusal := models.AsError(sub.Err()); refusal.Field != "after" || !strings.Contains(refusal.Message, "subscribe without after") {
			t.Errorf("told %q about %q", refusal.Message, refusal.Field)
		}
	}

	if n := b.prune(math.MaxInt64); n != 50 {
		t.Errorf("then %d were taken away", n)
	}
	b.stop()
	again := openAt(t, b.path)
	if again.Head() != last {
		t.Errorf("the empty log begins at %d, want %d", again.Head(), last)
	}
	if next := again.append(1); next != last+1 {
		t.Errorf("the next cursor is %d, want %d", next, last+1)
	}
	wantCursors(t, again.newReader(last).take(1), last+1, last+1)
}

// TestPrune_keepsNeededEvents what is young, what something else goes by, what is not counted,
// and everything after it.
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
		left   int64 // the first
	}{
		{"nothing is old", PruneBounds{Time: 0, ID: math.MaxInt64, Seq: math.MaxInt64}, 1},
		{"the fourth is not counted", PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: 4}, 4},
		{"the sixth has a delivery", PruneBounds{Time: math.MaxInt64, ID: id, Seq: math.MaxInt64}, 6},
	} {
		if _, err := b.Prune(t.Context(), row.bounds); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		if first, last := b.storedRange(); first != row.left || last != 9 {
			t.Errorf("%s: the log has %d to %d, want %d to 9", row.name, first, last, row.left)
		}
	}
	if n, err := b.Prune(t.Context(), PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: math.MaxInt64}); err == nil {
		t.Errorf("%d events went that the ledger had not counted", n)
	}
	if first, _ := b.storedRange(); first != 6 {
		t.Errorf("a pruning that failed left the log from %d on", first)
	}
}

// TestEvents_historyIsProtected: only the beginning of the log can go, and only what is old and
// counted; nothing can be put in its place, and the horizon does not come back.
func TestEvents_historyIsProtected(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(8)
	young := newNamedEvent("young")
	young.CreatedAt = models.NewTime(time.Now())
	testutil.Must(t, b.db.Write(t.Context(), func(tx *database.Tx) error { return b.Append(tx, young) }))
	_, err := b.db.AssignCursors(t.Context(), false)
	testutil.Must(t, err)
	b.append(1)
	b.exec("UPDATE ledger_sums SET seq = 10")
	b.prune(4)
	move := func(seq int64, at string) string {
		return fmt.Sprintf("UPDATE event_horizon SET seq = %d, created_at = %s", seq, at)
	}
	year := strconv.FormatInt(time.Now().AddDate(-1, 0, 0).UnixMicro(), 10)
	for _, statement := range []string{
		"DELETE FROM events",
		"DELETE FROM events WHERE seq = 4",
		"DELETE FROM events WHERE seq = 10",
		"UPDATE events SET kind = 'task.posted' WHERE seq = 5",
		move(2, "0"), // back
		move(3, "0"), // in place
		move(5, "-1"),
		move(9, year), // over one that is younger than it says
		move(9, strconv.FormatInt(int64(young.CreatedAt), 10)), // over one that is young
		move(10, strconv.FormatInt(int64(young.CreatedAt), 10)),
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
			t.Errorf("it took %q", statement)
		}
	}
	if first, last := b.storedRange(); first != 4 || last != 10 {
		t.Errorf("the log has %d to %d", first, last)
	}
	if n, err := b.Prune(t.Context(), PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: math.MaxInt64}); err == nil || n != 0 {
		t.Errorf("%d events went with a young one among them (%v)", n, err)
	}
}

// TestPrune_concurrent writers, readers and other pruners: nobody is told a gap for
// whole, and no cursor is given twice.
func TestPrune_concurrent(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(pageSize)
	var group sync.WaitGroup
	const rounds = 30
	follower := b.newReader(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 { // they read from the horizon on, over and over
		group.Go(func() {
			for ctx.Err() == nil {
				e, err := b.cursorRange(ctx)
				if err != nil {
					return
				}
				sub := b.Subscribe(ctx, acceptAll, &e.Horizon)
				for want := e.Horizon + 1; want <= e.Last; want++ {
					event, ok := <-sub.C
					if !ok {
						if err := sub.Err(); err != nil && models.CodeOf(err) != models.CursorExpired {
							t.Errorf("a reader was told %v", err)
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
		t.Errorf("the log has %d to %d, want %d to %d", first, end, last-100, last)
	}
	var told []models.Event
	for event := range follower.sub.C {
		if told = append(told, *event); event.Seq == last {
			break
		}
	}
	if err := follower.sub.Err(); err != nil && models.CodeOf(err) != models.CursorExpired && models.CodeOf(err) != models.SlowConsumer {
		t.Errorf("the follower was told %v", err)
	}
	wantCursors(t, told, 1, int64(len(told)))
}

// TestPrune_crash: a process that dies while it prunes has taken nothing away, or
// the horizon tells of it.
func TestPrune_crash(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(10)
	b.markCounted()
	died := errors.New("died")
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		if n, err := deleteBatch(tx, PruneBounds{Time: math.MaxInt64, ID: math.MaxInt64, Seq: 6}); n != 5 || err != nil {
			t.Errorf("%d events went: %v", n, err)
		}
		return died
	})
	if !errors.Is(err, died) {
		t.Fatal(err)
	}
	wantCursors(t, b.newReader(0).take(10), 1, 10)
	b.prune(6)
	wantCursors(t, b.newReader(5).take(5), 6, 10)
}

// TestFollow_afterStall: the process was stopped for longer than events are kept. Who
// listened is cut off rather than left with a gap.
func TestFollow_afterStall(t *testing.T) {
	t.Parallel()
	b := open(t)
	last := b.append(3)
	b.waitDispatched(last)
	live := b.Subscribe(t.Context(), acceptAll, nil)
	b.markCounted()
	b.prune(math.MaxInt64)
	b.mu.Lock()
	b.head, b.caughtUpAt = 1, time.Now().Add(-2*stallThreshold) // as the reader was when it was stopped
	b.mu.Unlock()
	b.Wake()
	if got := readAll(t, live); len(got) != 0 {
		t.Errorf("got %d events", len(got))
	}
	wantCode(t, live.Err(), models.SlowConsumer)
	b.waitDispatched(last)
}
