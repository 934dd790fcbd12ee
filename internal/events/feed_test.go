package events

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// countingFeed is a feed whose calls of wake are counted.
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

// next returns the next event, nil when there is none: it asks again as often as
// it is told to.
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

// remainingTitles takes what is there.
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

// TestTopics: an event is offered to those whom it concerns, once each however
// many of their topics it is about, and to nobody else.
func TestTopics(t *testing.T) {
	t.Parallel()
	b := open(t)
	rows := map[string]struct {
		topics []Topic
		hears  string
	}{
		"everything":           {[]Topic{AllEventsTopic()}, "ab b none accepted"},
		"every posted task":    {[]Topic{PostedTasksTopic()}, "ab b none"},
		"a capability":         {[]Topic{CapabilityTopic("a")}, "ab"},
		"two of them":          {[]Topic{CapabilityTopic("a"), CapabilityTopic("b")}, "ab b"},
		"one nobody asks for":  {[]Topic{CapabilityTopic("c")}, ""},
		"the poster":           {[]Topic{AgentTopic("p")}, "ab b none accepted"},
		"the worker":           {[]Topic{AgentTopic("w")}, "accepted"},
		"a worker who can a":   {[]Topic{AgentTopic("w"), CapabilityTopic("a")}, "ab accepted"},
		"no capability at all": {[]Topic{CapabilityTopic("")}, ""},
	}
	feeds := map[string]*countingFeed{}
	asked := map[string]*atomic.Int64{}
	for name, row := range rows {
		asked[name] = &atomic.Int64{}
		filter := func(*models.Event) bool { asked[name].Add(1); return true }
		feeds[name] = b.openFeed(Interest{row.topics, filter}, nil)
		if got := feeds[name].remainingTitles(t); got != "" {
			t.Errorf("%s: heard %s before anything happened", name, got)
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
		if got := f.remainingTitles(t); got != row.hears {
			t.Errorf("%s: heard %q, want %q", name, got, row.hears)
		}
		if got, want := f.wakes.Load(), int64(min(1, len(row.hears))); got != want {
			t.Errorf("%s: woken %d times, want %d", name, got, want)
		}
		if row.hears == "" && asked[name].Load() > 0 {
			t.Errorf("%s: events that do not concern it cost it", name)
		}
		f.Close()
	}
	if b.Subscribers() != 0 || len(b.feeds) != 0 {
		t.Errorf("%d feeds and %d topics are left", b.Subscribers(), len(b.feeds))
	}
}

// TestFeed_wakesReader: a reader that asks until there is nothing is woken for what
// comes, each time, whether it reads history before or not. Only what is history
// is read for it alone.
func TestFeed_wakesReader(t *testing.T) {
	t.Parallel()
	const history, rounds = 3, 20
	for name, row := range map[string]struct {
		after *int64
		first int64
	}{"from now on": {nil, history + 1}, "from the first": {new(int64), 1}} {
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
						t.Errorf("event %d: alone is %t", event.Seq, feed.Replaying())
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

// TestFeed_longHistory: a reader of history has the turn after each page, however
// little of it is for it, and reads no more of it once it has closed its feed.
func TestFeed_longHistory(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.waitDispatched(b.append(4 * pageSize))
	looked := int64(0)
	f := b.openFeed(Interest{[]Topic{AllEventsTopic()}, func(e *models.Event) bool {
		looked++
		return e.Seq%pageSize == 0 // one of each page
	}}, new(int64))
	const turns = 2
	for turn := range int64(turns) {
		for _, want := range []int64{0, (turn + 1) * pageSize} {
			event, err := f.Next(t.Context())
			testutil.Must(t, err)
			if got := seqOf(event); got != want || looked != want && want > 0 || f.wakes.Load() != turn+1 {
				t.Fatalf("turn %d: got event %d, want %d; looked at %d, woken %d times", turn, got, want, looked, f.wakes.Load())
			}
		}
	}
	f.Close()
	looked = 0
	for range 2 {
		if event, err := f.Next(t.Context()); event != nil || err != nil || looked > 0 || f.wakes.Load() != turns {
			t.Errorf("a closed feed gave %v (%v), looked at %d events and was woken %d times", event, err, looked, f.wakes.Load())
		}
	}
}

func seqOf(event *models.Event) int64 {
	if event == nil {
		return 0
	}
	return event.Seq
}

// TestFeed_idleHoldsNothing: nothing waits in a feed that was read to its end.
func TestFeed_idleHoldsNothing(t *testing.T) {
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
			t.Errorf("got %v, want nothing", event)
		}
		if f.queue != nil || f.history != nil {
			t.Errorf("a feed at its end keeps %d and %d events", cap(f.queue), cap(f.history))
		}
		f.Close()
	}
	if slices.ContainsFunc(feeds, func(f *countingFeed) bool { return f.replaying }) {
		t.Error("history is read for ever")
	}
}
