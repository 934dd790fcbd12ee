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

// TestReplay leaves and comes back at random points, while events go on being
// written: history longer than a page, the hand-over to what is live, and what
// is live. Whatever the cuts, each reader sees every event once, in order.
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
	testutil.Eventually(t, "the readers to be gone", func() bool { return b.Subscribers() == 0 })
}

// TestReplay_overflowIsNotSlow: while a reader is at old events, more happen than
// its queue holds. It gets all of them and is not called slow.
func TestReplay_overflowIsNotSlow(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.append(10)
	sub := b.Subscribe(t.Context(), acceptAll, new(int64))
	first, _ := mustReceive(t, sub.C)
	last := b.append(3 * maxQueuedEvents)
	b.waitDispatched(last)
	got := []models.Event{*first}
	for int64(len(got)) < last {
		event, ok := mustReceive(t, sub.C)
		if !ok {
			t.Fatalf("cut off after %d events: %v", len(got), sub.Err())
		}
		got = append(got, *event)
	}
	wantCursors(t, got, 1, last)
}

// TestFeed_overflowAfterReplay: the queue fills with events that the replay has
// sent already, and then one more happens. The reader must not wait for ever
// for what was dropped.
func TestFeed_overflowAfterReplay(t *testing.T) {
	t.Parallel()
	b := open(t)
	feed := b.OpenFeed(Interest{[]Topic{AllEventsTopic()}, acceptAll}, nil, func(*models.Event) {})
	t.Cleanup(feed.Close)
	for seq := range int64(maxQueuedEvents) {
		feed.offer(&models.Event{Seq: seq + 1})
	}
	feed.cursor = maxQueuedEvents // the replay has brought them
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
			t.Errorf("%q: the field at fault is %q", text, field)
		}
	}
	for _, seq := range []int64{0, 1, 1 << 60} {
		if got, err := ParseCursor("after", Cursor(seq)); err != nil || got != seq {
			t.Errorf("cursor %d came back as %d (%v)", seq, got, err)
		}
	}
	b := open(t)
	last := b.append(3)
	t.Run("0 begins with the first event", func(t *testing.T) {
		t.Parallel()
		wantCursors(t, (&bundle{Log: b.Log, t: t}).newReader(0).take(3), 1, 3)
	})
	t.Run("one past the end is refused", func(t *testing.T) {
		t.Parallel()
		sub := b.Subscribe(t.Context(), acceptAll, new(last+1))
		if got := readAll(t, sub); len(got) != 0 {
			t.Errorf("got %d events", len(got))
		}
		wantCode(t, sub.Err(), models.InvalidInput)
	})
	t.Run("the last one waits for what comes", func(t *testing.T) {
		t.Parallel()
		other := open(t)
		end := other.append(3)
		r := other.newReader(end)
		other.append(1)
		wantCursors(t, r.take(1), end+1, end+1)
	})
	t.Run("one that the filter left out is as good as any", func(t *testing.T) {
		t.Parallel()
		odd := func(e *models.Event) bool { return e.Seq%2 == 1 }
		sub := b.Subscribe(t.Context(), odd, new(int64(2)))
		if event, ok := mustReceive(t, sub.C); !ok || event.Seq != 3 {
			t.Errorf("got %d, want 3", event.Seq)
		}
	})
}

// TestSlowConsumer: a subscriber that does not read holds up nobody. It gets
// what was queued for it, is told why it is cut off, and misses nothing when it
// comes back with its last cursor.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	b := open(t)
	slow := b.Subscribe(t.Context(), acceptAll, nil)
	quick := b.Subscribe(t.Context(), acceptAll, nil)
	const all = 2 * maxQueuedEvents
	for seq := int64(1); seq <= all; seq++ {
		b.append(1)
		if event, ok := mustReceive(t, quick.C); !ok || event.Seq != seq {
			t.Fatalf("the quick subscriber got %d, want %d", event.Seq, seq)
		}
	}
	got := readAll(t, slow)
	wantCode(t, slow.Err(), models.SlowConsumer)
	if n := b.SlowConsumers(); n != 1 {
		t.Errorf("%d are counted as dropped", n)
	}
	if len(got) < maxQueuedEvents || len(got) > maxQueuedEvents+1 {
		t.Errorf("the slow one got %d events, want what its queue holds", len(got))
	}
	back := b.newReader(got[len(got)-1].Seq)
	got = append(got, back.take(all-len(got))...)
	wantCursors(t, got, 1, all)
}

// TestUnsubscribe: subscribers that go, in whatever state they are, leave
// nothing behind.
func TestUnsubscribe(t *testing.T) {
	t.Parallel()
	b := open(t)
	last := b.append(20)
	count := goroutines.Counter(t)
	before := count()

	ctx, cancel := context.WithCancel(t.Context())
	reading := b.Subscribe(ctx, acceptAll, new(int64))
	for range 3 {
		mustReceive(t, reading.C) // the replay is under way
	}
	const others = 10
	for i := range others {
		if i%2 == 0 {
			b.Subscribe(ctx, acceptAll, nil) // waits for what comes
		} else {
			b.Subscribe(ctx, acceptAll, new(last-1)) // waits for its reader
		}
	}
	if n := count(); n < before+others+1 {
		t.Errorf("%d goroutines run, want %d: the count is blind", n, before+others+1)
	}
	if n := b.Subscribers(); n != others+1 {
		t.Errorf("%d subscribers, want %d", n, others+1)
	}
	cancel()
	if readAll(t, reading); reading.Err() != nil {
		t.Errorf("a subscriber that left was told %v", reading.Err())
	}
	testutil.Eventually(t, "the subscribers to be gone", func() bool { return b.Subscribers() == 0 })
	testutil.Eventually(t, "their goroutines to end", func() bool { return count() <= before })
}
