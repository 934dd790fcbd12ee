package graph

import (
	"fmt"
	"strings"
	"testing"
)

// TestFanout_matchesQuery checks that each of many subscribers gets the task as it would
// with a query: only the parties of a task see its private fields.
func TestFanout_matchesQuery(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.Settings.StartingCredits = 10_000
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, "")
	done := b.completedTask(t, poster, worker)
	const fragment = "fragment F on Task { again: id poster { ...A } } fragment A on Agent { reputationScore }"
	fields := map[string]string{ // fields and their fragments
		"id title status": "",
		"id result poster { id name } worker { id }":       "",
		"... on Task { result } requiredCapabilities ...F": fragment,
	}
	type subscriber struct {
		caller caller
		fields string
		stream *clientSubscription
	}
	var all []subscriber
	for _, from := range []caller{worker, {}, b.registerAgent(t, ""), b.registerAgent(t, ""), worker, {}} {
		for selected, fragments := range fields {
			for _, subscribe := range subscribeFuncs() {
				all = append(all, subscriber{from, selected, subscribe(b, t, from,
					`subscription { taskPosted(capabilities: [], after: "0") { cursor task { `+selected+` } } } `+fragments)})
			}
		}
	}
	compare := func(id string) {
		for _, s := range all {
			want := b.mustQuery(t, s.caller, fmt.Sprintf(`{ task(id: %q) { `+s.fields+` } } `+fields[s.fields], id)).get(t, "task")
			if got := s.stream.nextN(1)[0].get(t, "taskPosted.task"); got != want {
				t.Errorf("%q: the event has %s, the query %s", s.fields, got, want)
			}
		}
	}
	compare(done)
	for i := range 10 {
		compare(b.postTask(t, poster, fmt.Sprintf("budget: %d", 5+i)))
	}
}

// TestFanout_rendersOnce checks that an event for fifty subscribers is rendered once per
// document.
func TestFanout_rendersOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, listener := b.registerAgent(t, ""), b.registerAgent(t, "")
	var all []*clientSubscription
	for i := range 50 {
		from := listener
		if i%2 == 1 {
			from = caller{}
		}
		all = append(all, b.subscribeWebSocket(t, from, fmt.Sprintf(`subscription($after: String = "0") { taskPosted(capabilities: [%q], after: $after) { task { poster { name } } } }`, []string{"x", "y"}[i%2])))
	}
	b.postTask(t, poster, `budget: 5, requiredCapabilities: ["x", "y"]`)
	for _, stream := range all {
		stream.nextN(1) // past the replay
	}
	n := &b.readCount
	b.postTask(t, poster, `budget: 5, requiredCapabilities: ["x", "y"]`)
	for _, stream := range all {
		stream.nextN(1)[0].assertFields(t, "taskPosted.task.poster.name", "Agent")
	}
	if read := n.Load(); read > 10 {
		t.Errorf("%d read statements for two documents", read)
	}
}

// TestFanout_largePayload checks that a payload that is too large to share reaches every
// subscriber.
func TestFanout_largePayload(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, "")
	var all []*clientSubscription
	for range 3 {
		for _, subscribe := range subscribeFuncs() {
			all = append(all, subscribe(b, t, caller{}, "subscription { taskPosted { task { a: description b: description c: description } } }"))
		}
	}
	b.waitForSubscriptions(t, len(all))
	long := strings.Repeat("long,", 5000)
	b.mustQuery(t, poster, fmt.Sprintf(`mutation { postTask(input: {title: "T", description: %q, budget: 2}) { task { id } } }`, long))
	for _, stream := range all {
		stream.nextN(1)[0].assertFields(t, "taskPosted.task.a", long, "taskPosted.task.c", long)
	}
}
