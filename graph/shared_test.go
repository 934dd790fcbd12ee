package graph

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/models"
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

// TestShared_large: what is too large to be shared is heard by all the same, and
// nothing of it is kept.
func TestShared_large(t *testing.T) {
	t.Parallel()
	b := open(t)
	poster := b.register(t, "")
	var all []*feed
	for range 3 {
		for _, subscribe := range doors() {
			all = append(all, subscribe(b, t, caller{}, "subscription { taskPosted { task { a: description b: description c: description } } }"))
		}
	}
	b.live(t, len(all))
	long := strings.Repeat("long,", 5000)
	b.ok(t, poster, fmt.Sprintf(`mutation { postTask(input: {title: "T", description: %q, budget: 2}) { task { id } } }`, long))
	for _, heard := range all {
		heard.take(1)[0].wants(t, "taskPosted.task.a", long, "taskPosted.task.c", long)
	}
	if kept := b.server.shared.ready; kept.bytes != 0 || kept.kept.Len() != 1 {
		t.Errorf("%d answers of %d bytes are kept", kept.kept.Len(), kept.bytes)
	}
}

// hanging is a schema whose next answers never come.
type hanging struct {
	graphql.ExecutableSchema
	times atomic.Int64
}

func (h *hanging) Exec(ctx context.Context) graphql.ResponseHandler {
	if h.times.Add(-1) < 0 {
		return h.ExecutableSchema.Exec(ctx)
	}
	return func(ctx context.Context) *graphql.Response {
		<-ctx.Done()
		return nil
	}
}

// TestShared_limit: an answer that takes too long is given up, and those who wait
// for it are answered one by one, or told.
func TestShared_limit(t *testing.T) {
	t.Parallel()
	const size = 3
	for name, row := range map[string]struct {
		hangs int64
		limit time.Duration
		code  string
	}{
		"once":     {1, 2 * time.Second, ""}, // and the others take less than that
		"for ever": {1 << 20, 20 * time.Millisecond, string(models.Unavailable)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			poster := b.register(t, "")
			h := &hanging{ExecutableSchema: b.server.shared.schema}
			h.times.Store(row.hangs)
			b.server.shared.schema, b.server.shared.limit = h, row.limit
			var all []*feed
			for range size {
				for _, subscribe := range doors() {
					all = append(all, subscribe(b, t, caller{}, "subscription { taskPosted { task { budget } } }"))
				}
			}
			b.live(t, len(all))
			b.post(t, poster, "budget: 5")
			for _, heard := range all {
				if row.code == "" {
					heard.take(1)[0].wants(t, "taskPosted.task.budget", "5")
				} else if events, code := heard.ended(); len(events) > 0 || code != row.code {
					t.Errorf("heard %d events, then %q, want %s", len(events), code, row.code)
				}
			}
		})
	}
}
