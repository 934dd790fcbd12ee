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

// TestFanout_matchesQuery: however many subscribe with the same document, each gets what it
// would get by asking for the task itself: nobody sees what only a party to the
// task may, and a party sees all of it.
func TestFanout_matchesQuery(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.Settings.StartingCredits = 10_000
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, "")
	done := b.completedTask(t, poster, worker)
	const fragment = "fragment F on Task { again: id poster { ...A } } fragment A on Agent { reputationScore }"
	fields := map[string]string{ // and the fragments they use
		"id title status": "",
		"id result poster { id name } worker { id }":       "",
		"... on Task { result } requiredCapabilities ...F": fragment,
	}
	type subscriber struct {
		caller caller
		fields string
		heard  *clientSubscription
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
			if got := s.heard.nextN(1)[0].get(t, "taskPosted.task"); got != want {
				t.Errorf("%q hears %s, is answered %s", s.fields, got, want)
			}
		}
	}
	compare(done)
	for i := range 10 {
		compare(b.postTask(t, poster, fmt.Sprintf("budget: %d", 5+i)))
	}
}

// TestFanout_rendersOnce: an event that fifty hear of is rendered once for each
// document, not once for each of them.
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
	for _, heard := range all {
		heard.nextN(1) // now they listen
	}
	n := &b.readCount
	b.postTask(t, poster, `budget: 5, requiredCapabilities: ["x", "y"]`)
	for _, heard := range all {
		heard.nextN(1)[0].assertFields(t, "taskPosted.task.poster.name", "Agent")
	}
	if read := n.Load(); read > 10 {
		t.Errorf("%d statements were read for two documents", read)
	}
}

// TestFanout_largePayload: what is too large to be shared is heard by all the same, and
// nothing of it is kept.
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
	for _, heard := range all {
		heard.nextN(1)[0].assertFields(t, "taskPosted.task.a", long, "taskPosted.task.c", long)
	}
	if kept := b.server.hub.payloads; kept.totalBytes != 0 || kept.entries.Len() != 1 {
		t.Errorf("%d answers of %d bytes are kept", kept.entries.Len(), kept.totalBytes)
	}
}

// hangingSchema is a schema whose next answers never come.
type hangingSchema struct {
	graphql.ExecutableSchema
	hangs atomic.Int64
}

func (h *hangingSchema) Exec(ctx context.Context) graphql.ResponseHandler {
	if h.hangs.Add(-1) < 0 {
		return h.ExecutableSchema.Exec(ctx)
	}
	return func(ctx context.Context) *graphql.Response {
		<-ctx.Done()
		return nil
	}
}

// TestFanout_renderTimeout: an answer that takes too long is given up, and those who wait
// for it are answered one by one, or told.
func TestFanout_renderTimeout(t *testing.T) {
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
			b := newBundle(t)
			poster := b.registerAgent(t, "")
			h := &hangingSchema{ExecutableSchema: b.server.hub.schema}
			h.hangs.Store(row.hangs)
			b.server.hub.schema, b.server.hub.renderTimeout = h, row.limit
			var all []*clientSubscription
			for range size {
				for _, subscribe := range subscribeFuncs() {
					all = append(all, subscribe(b, t, caller{}, "subscription { taskPosted { task { budget } } }"))
				}
			}
			b.waitForSubscriptions(t, len(all))
			b.postTask(t, poster, "budget: 5")
			for _, heard := range all {
				if row.code == "" {
					heard.nextN(1)[0].assertFields(t, "taskPosted.task.budget", "5")
				} else if events, code := heard.drain(); len(events) > 0 || code != row.code {
					t.Errorf("heard %d events, then %q, want %s", len(events), code, row.code)
				}
			}
		})
	}
}
