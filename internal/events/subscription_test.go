package events

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/goroutines"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestReplay unsubscribes and resumes at random cursors while events are written. The
// replay covers several pages of history, the switch to live events, and live events.
// Each reader gets every event once, in order.
func TestReplay(t *testing.T) {
	t.Parallel()
	b := open(t)
	const history, live, readers = 2*pageSize + 100, 300, 6
	b.append(history)
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			cut := random.Int64N(history)
			var got []models.Event
			for r := b.newReader(cut); ; r = b.newReader(r.cursor) {
				left := int(history + live - r.cursor)
				got = append(got, r.take(min(left, 1+random.IntN(400)))...)
				r.cancel()
				if r.cursor == history+live {
					break
				}
			}
			wantCursors(t, got, cut+1, history+live)
		})
	}
	group.Go(func() {
		for range live {
			b.append(1)
		}
	})
	group.Wait()
	testutil.Eventually(t, "the feeds to be closed", func() bool { return b.Subscribers() == 0 })
}

// TestReplay_overflowIsNotSlow appends more events than the queue holds while a reader
// replays history. The reader gets all of them and no SLOW_CONSUMER.
func TestReplay_overflowIsNotSlow(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(10)
	sub := b.subscribe(t.Context(), acceptAll, new(int64))
	first, _ := mustReceive(t, sub.C)
	last := b.append(3 * maxQueuedEvents)
	b.waitDispatched(last)
	got := []models.Event{*first}
	for int64(len(got)) < last {
		event, ok := mustReceive(t, sub.C)
		if !ok {
			t.Fatalf("closed after %d events: %v", len(got), sub.err)
		}
		got = append(got, *event)
	}
	wantCursors(t, got, 1, last)
}

// TestFeed_overflowAfterReplay fills the queue with events that the replay has already
// delivered, and then drops one more event. The reader must get SLOW_CONSUMER and not
// wait forever.
func TestFeed_overflowAfterReplay(t *testing.T) {
	t.Parallel()
	b := open(t)
	feed := b.OpenFeed(Interest{[]Topic{AllEventsTopic()}, acceptAll}, nil, func(*models.Event) {})
	t.Cleanup(feed.Close)
	for seq := range int64(maxQueuedEvents) {
		feed.offer(&models.Event{Seq: seq + 1})
	}
	feed.cursor = maxQueuedEvents // the replay has delivered them
	feed.offer(&models.Event{Seq: maxQueuedEvents + 1})
	event, err := feed.Next(t.Context())
	if event != nil {
		t.Errorf("got event %d again", event.Seq)
	}
	wantCode(t, err, models.SlowConsumer)
}

func TestCursors(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", " 1", "1 ", "+1x", "-1", "+1", "00", "01", "-0", "0x10", "1.0", "1e3", "abc", "99999999999999999999", "'; DROP TABLE events"} {
		_, err := ParseCursor("after", text)
		wantCode(t, err, models.InvalidInput)
		if field := models.AsError(err).Field; field != "after" {
			t.Errorf("%q: the error is for field %q", text, field)
		}
	}
	for _, seq := range []int64{0, 1, 1 << 60} {
		if got, err := ParseCursor("after", Cursor(seq)); err != nil || got != seq {
			t.Errorf("cursor %d is parsed as %d (%v)", seq, got, err)
		}
	}
	b := open(t)
	last := b.append(3)
	t.Run("0 starts at the first event", func(t *testing.T) {
		t.Parallel()
		wantCursors(t, (&bundle{Log: b.Log, t: t}).newReader(0).take(3), 1, 3)
	})
	t.Run("a cursor after the end is rejected", func(t *testing.T) {
		t.Parallel()
		sub := b.subscribe(t.Context(), acceptAll, new(last+1))
		if got := readAll(t, sub); len(got) != 0 {
			t.Errorf("got %d events", len(got))
		}
		wantCode(t, sub.err, models.InvalidInput)
	})
	t.Run("the last cursor waits for new events", func(t *testing.T) {
		t.Parallel()
		other := open(t)
		end := other.append(3)
		r := other.newReader(end)
		other.append(1)
		wantCursors(t, r.take(1), end+1, end+1)
	})
	t.Run("the cursor of a filtered event is valid", func(t *testing.T) {
		t.Parallel()
		odd := func(e *models.Event) bool { return e.Seq%2 == 1 }
		sub := b.subscribe(t.Context(), odd, new(int64(2)))
		if event, ok := mustReceive(t, sub.C); !ok || event.Seq != 3 {
			t.Errorf("got %d, want 3", event.Seq)
		}
	})
}

// TestSlowConsumer checks that a subscriber that does not read delays no other. It gets
// its queued events and SLOW_CONSUMER, and can resume from its last cursor.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	b := open(t)
	slow := b.subscribe(t.Context(), acceptAll, nil)
	fast := b.subscribe(t.Context(), acceptAll, nil)
	const all = 2 * maxQueuedEvents
	for seq := int64(1); seq <= all; seq++ {
		b.append(1)
		if event, ok := mustReceive(t, fast.C); !ok || event.Seq != seq {
			t.Fatalf("the fast subscriber got %d, want %d", event.Seq, seq)
		}
	}
	got := readAll(t, slow)
	wantCode(t, slow.err, models.SlowConsumer)
	if n := b.SlowConsumers(); n != 1 {
		t.Errorf("%d slow consumers, want 1", n)
	}
	if len(got) < maxQueuedEvents || len(got) > maxQueuedEvents+1 {
		t.Errorf("the slow subscriber got %d events, want those in its queue", len(got))
	}
	resumed := b.newReader(got[len(got)-1].Seq)
	got = append(got, resumed.take(all-len(got))...)
	wantCursors(t, got, 1, all)
}

// TestUnsubscribe checks that closed feeds leave no goroutine and no entry in the log,
// whatever their state.
func TestUnsubscribe(t *testing.T) {
	t.Parallel()
	b := open(t)
	last := b.append(20)
	count := goroutines.Counter(t)
	before := count()

	ctx, cancel := context.WithCancel(t.Context())
	reading := b.subscribe(ctx, acceptAll, new(int64))
	for range 3 {
		mustReceive(t, reading.C) // the replay has started
	}
	const others = 10
	for i := range others {
		if i%2 == 0 {
			b.subscribe(ctx, acceptAll, nil) // waits for new events
		} else {
			b.subscribe(ctx, acceptAll, new(last-1)) // waits for its reader
		}
	}
	if n := count(); n < before+others+1 {
		t.Errorf("%d goroutines run, want at least %d", n, before+others+1)
	}
	if n := b.Subscribers(); n != others+1 {
		t.Errorf("%d subscribers, want %d", n, others+1)
	}
	cancel()
	if readAll(t, reading); reading.err != nil {
		t.Errorf("a cancelled subscription got %v", reading.err)
	}
	testutil.Eventually(t, "the feeds to be closed", func() bool { return b.Subscribers() == 0 })
	testutil.Eventually(t, "their goroutines to end", func() bool { return count() <= before })
}
