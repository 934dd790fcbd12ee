package events

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// countingFeed is a feed that counts the calls of wake.
type countingFeed struct {
	*Feed
	wakes atomic.Int64
}

func (b *bundle) openFeed(interest Interest, after *int64) *countingFeed {
	b.t.Helper()
	f := &countingFeed{}
	f.Feed = b.OpenFeed(interest, after, func(*models.Event) { f.wakes.Add(1) })
	return f
}

// next returns the next event, or nil if there is none. It calls Next again while the
// feed calls wake.
func (f *countingFeed) next(t *testing.T) *models.Event {
	t.Helper()
	for {
		woken := f.wakes.Load()
		event, err := f.Next(t.Context())
		testutil.Must(t, err)
		if event != nil || f.wakes.Load() == woken {
			return event
		}
	}
}

// remainingTitles returns the task titles of the available events.
func (f *countingFeed) remainingTitles(t *testing.T) string {
	t.Helper()
	var titles []string
	for {
		event := f.next(t)
		if event == nil {
			return strings.Join(titles, " ")
		}
		titles = append(titles, event.Task.Title)
	}
}

// TestFeed_topics checks that an event is offered once to each feed with one of its topics,
// and to no other feed.
func TestFeed_topics(t *testing.T) {
	t.Parallel()
	b := open(t)
	rows := map[string]struct {
		topics []Topic
		want   string
	}{
		"everything":           {[]Topic{AllEventsTopic()}, "ab b none accepted"},
		"every posted task":    {[]Topic{PostedTasksTopic()}, "ab b none"},
		"a capability":         {[]Topic{CapabilityTopic("a")}, "ab"},
		"two capabilities":     {[]Topic{CapabilityTopic("a"), CapabilityTopic("b")}, "ab b"},
		"an unused capability": {[]Topic{CapabilityTopic("c")}, ""},
		"the poster":           {[]Topic{AgentTopic("p")}, "ab b none accepted"},
		"the worker":           {[]Topic{AgentTopic("w")}, "accepted"},
		"a worker with a":      {[]Topic{AgentTopic("w"), CapabilityTopic("a")}, "ab accepted"},
		"an empty capability":  {[]Topic{CapabilityTopic("")}, ""},
	}
	feeds := map[string]*countingFeed{}
	filtered := map[string]*atomic.Int64{}
	for name, row := range rows {
		filtered[name] = &atomic.Int64{}
		filter := func(*models.Event) bool { filtered[name].Add(1); return true }
		feeds[name] = b.openFeed(Interest{row.topics, filter}, nil)
		if got := feeds[name].remainingTitles(t); got != "" {
			t.Errorf("%s: got %s before any event", name, got)
		}
	}
	task := func(title string, capabilities ...string) *models.Task {
		return &models.Task{Title: title, Capabilities: capabilities}
	}
	for i, event := range []models.Event{
		{Kind: models.TaskPosted, PosterID: new("p"), Task: task("ab", "a", "b")},
		{Kind: models.TaskPosted, PosterID: new("p"), Task: task("b", "b")},
		{Kind: models.TaskPosted, PosterID: new("p"), Task: task("none")},
		{Kind: models.TaskAccepted, PosterID: new("p"), WorkerID: new("w"), Task: task("accepted", "a")},
	} {
		event.Seq = int64(i + 1)
		b.offer(&event)
	}
	for name, row := range rows {
		f := feeds[name]
		if got := f.remainingTitles(t); got != row.want {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
		if got, want := f.wakes.Load(), int64(min(1, len(row.want))); got != want {
			t.Errorf("%s: woken %d times, want %d", name, got, want)
		}
		if row.want == "" && filtered[name].Load() > 0 {
			t.Errorf("%s: its filter ran for events of other topics", name)
		}
		f.Close()
	}
	if b.Subscribers() != 0 || len(b.feeds) != 0 {
		t.Errorf("%d feeds and %d topics are left", b.Subscribers(), len(b.feeds))
	}
}

// TestFeed_wakesReader checks that a reader that has read all events is woken for the
// next one, each time, with and without history. Replaying is true only for history.
func TestFeed_wakesReader(t *testing.T) {
	t.Parallel()
	const history, rounds = 3, 20
	for name, row := range map[string]struct {
		after *int64
		first int64
	}{"new events": {nil, history + 1}, "from the first event": {new(int64), 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.waitDispatched(b.append(history))
			woken := make(chan int64, 1)
			feed := &countingFeed{}
			feed.Feed = b.OpenFeed(Interest{[]Topic{AgentTopic("agent")}, acceptAll}, row.after, func(e *models.Event) {
				if e == nil {
					feed.wakes.Add(1)
					return
				}
				woken <- e.Seq
			})
			t.Cleanup(feed.Close)
			var got []models.Event
			drain := func() {
				for {
					event := feed.next(t)
					if event == nil {
						return
					}
					if feed.Replaying() != (event.Seq <= history) {
						t.Errorf("event %d: replaying is %t", event.Seq, feed.Replaying())
					}
					got = append(got, *event)
				}
			}
			for i := range int64(rounds) {
				drain()
				b.waitDispatched(b.append(2))
				if first, _ := mustReceive(t, woken); first != history+2*i+1 {
					t.Fatalf("woken for event %d, want the first of two, %d", first, history+2*i+1)
				}
			}
			drain()
			wantCursors(t, got, row.first, history+2*rounds)
		})
	}
}

// TestFeed_longHistory checks that Next returns after each page of history, even if few
// events match, and reads no more pages after Close.
func TestFeed_longHistory(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.waitDispatched(b.append(4 * pageSize))
	filtered := int64(0)
	f := b.openFeed(Interest{[]Topic{AllEventsTopic()}, func(e *models.Event) bool {
		filtered++
		return e.Seq%pageSize == 0 // one event per page
	}}, new(int64))
	const turns = 2
	for turn := range int64(turns) {
		for _, want := range []int64{0, (turn + 1) * pageSize} {
			event, err := f.Next(t.Context())
			testutil.Must(t, err)
			if got := seqOf(event); got != want || filtered != want && want > 0 || f.wakes.Load() != turn+1 {
				t.Fatalf("turn %d: got event %d, want %d; filtered %d, woken %d times", turn, got, want, filtered, f.wakes.Load())
			}
		}
	}
	f.Close()
	filtered = 0
	for range 2 {
		if event, err := f.Next(t.Context()); event != nil || err != nil || filtered > 0 || f.wakes.Load() != turns {
			t.Errorf("a closed feed returned %v (%v), filtered %d events and was woken %d times", event, err, filtered, f.wakes.Load())
		}
	}
}

func seqOf(event *models.Event) int64 {
	if event == nil {
		return 0
	}
	return event.Seq
}

// TestFeed_idleReleasesMemory checks that a feed without unread events holds no memory.
func TestFeed_idleReleasesMemory(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.waitDispatched(b.append(3))
	feeds := []*countingFeed{b.openFeed(Interest{[]Topic{AllEventsTopic()}, acceptAll}, nil), b.openFeed(Interest{[]Topic{AllEventsTopic()}, acceptAll}, new(int64))}
	b.waitDispatched(b.append(3))
	for i, f := range feeds {
		for range []int{3, 6}[i] {
			if f.next(t) == nil {
				t.Fatal("events are missing")
			}
		}
		if event := f.next(t); event != nil {
			t.Errorf("got %v, want no event", event)
		}
		if f.queue != nil || f.history != nil {
			t.Errorf("an idle feed holds a queue of %d and a history of %d events", cap(f.queue), cap(f.history))
		}
		f.Close()
	}
	if slices.ContainsFunc(feeds, func(f *countingFeed) bool { return f.replaying }) {
		t.Error("a feed is still replaying")
	}
}
