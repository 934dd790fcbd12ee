package graph

import (
	"fmt"
	"testing"
)

// TestShared: however many subscribe with the same document, each gets what it
// would get by asking for the task itself: nobody sees what only a party to the
// task may, and a party sees all of it.
func TestShared(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.Settings.StartingCredits = 10_000
	poster, worker := b.register(t, ""), b.register(t, "")
	done := b.completed(t, poster, worker)
	const fragment = "fragment F on Task { again: id poster { ...A } } fragment A on Agent { reputationScore }"
	fields := map[string]string{ // and the fragments they use
		"id title status": "",
		"id result poster { id name } worker { id }":       "",
		"... on Task { result } requiredCapabilities ...F": fragment,
	}
	type subscriber struct {
		caller caller
		fields string
		heard  *feed
	}
	var all []subscriber
	for _, from := range []caller{worker, {}, b.register(t, ""), b.register(t, ""), worker, {}} {
		for selected, fragments := range fields {
			for _, subscribe := range doors() {
				all = append(all, subscriber{from, selected, subscribe(b, t, from,
					`subscription { taskPosted(capabilities: [], after: "0") { cursor task { `+selected+` } } } `+fragments)})
			}
		}
	}
	compare := func(id string) {
		for _, s := range all {
			want := b.ok(t, s.caller, fmt.Sprintf(`{ task(id: %q) { `+s.fields+` } } `+fields[s.fields], id)).get(t, "task")
			if got := s.heard.take(1)[0].get(t, "taskPosted.task"); got != want {
				t.Errorf("%q hears %s, is answered %s", s.fields, got, want)
			}
		}
	}
	compare(done)
	for i := range 10 {
		compare(b.post(t, poster, fmt.Sprintf("budget: %d", 5+i)))
	}
}

// TestShared_once: an event that fifty hear of is rendered once for each
// document, not once for each of them.
func TestShared_once(t *testing.T) {
	t.Parallel()
	b := open(t)
	poster, listener := b.register(t, ""), b.register(t, "")
	var all []*feed
	for i := range 50 {
		from := listener
		if i%2 == 1 {
			from = caller{}
		}
		all = append(all, b.socket(t, from, fmt.Sprintf(`subscription($after: String = "0") { taskPosted(capabilities: [%q], after: $after) { task { poster { name } } } }`, []string{"x", "y"}[i%2])))
	}
	b.post(t, poster, `budget: 5, requiredCapabilities: ["x", "y"]`)
	for _, heard := range all {
		heard.take(1) // now they listen
	}
	n := &b.reads
	b.post(t, poster, `budget: 5, requiredCapabilities: ["x", "y"]`)
	for _, heard := range all {
		heard.take(1)[0].wants(t, "taskPosted.task.poster.name", "Agent")
	}
	if read := n.Load(); read > 10 {
		t.Errorf("%d statements were read for two documents", read)
	}
}
