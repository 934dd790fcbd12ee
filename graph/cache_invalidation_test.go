package graph

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/testutil"
)

// TestCache_invalidation checks that a repeated query is served from the cache until a row
// it depends on is written, and that no caller gets the response of another.
func TestCache_invalidation(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, "")
	done := b.completedTask(t, poster, worker)
	n := &b.readCount
	reads := func(c caller, document string) int64 {
		before := n.Load()
		b.mustQuery(t, c, document)
		return n.Load() - before
	}
	const list = `{ tasks(filter: {status: [COMPLETED]}) { nodes { id poster { name } } } }`
	if first, second, others := reads(poster, list), reads(poster, list), reads(caller{}, list); first == 0 || second != 0 || others != 0 {
		t.Errorf("a public list took %d, %d and for another caller %d statements", first, second, others)
	}
	if other := reads(poster, `{ tasks(filter: {status: [OPEN]}) { nodes { id poster { name } } } }`); other == 0 {
		t.Error("another document was served from the cache")
	}
	one := fmt.Sprintf(`{ task(id: %q) { title rating { score } poster { name } worker { completedTaskCount } } }`, done)
	if first, second := reads(worker, one), reads(worker, one); first == 0 || second != 0 {
		t.Errorf("one task took %d and %d statements", first, second)
	}
	b.postTask(t, poster, "budget: 5")
	if again := reads(poster, list); again == 0 {
		t.Error("the response is older than the write")
	}
	if again := reads(worker, one); again != 0 {
		t.Errorf("one task took %d statements after another was posted", again)
	}
	for what, write := range map[string]func(){
		"to the task": func() {
			b.mustQuery(t, poster, fmt.Sprintf(`mutation { rateTask(input: {taskId: %q, score: 3}) { task { id } } }`, done))
		},
		"to its worker": func() { b.completedTask(t, poster, worker) },
		"to its poster": func() { b.mustQuery(t, poster, `mutation { updateAgent(input: {name: "New"}) { agent { id } } }`) },
	} {
		reads(worker, one)
		write()
		if again := reads(worker, one); again == 0 {
			t.Errorf("the response is older than the write %s", what)
		}
	}
	results := fmt.Sprintf(`{ task(id: %q) { result } }`, done)
	for range 2 {
		b.mustQuery(t, worker, results).assertFields(t, "task.result", "the result")
		b.mustQuery(t, caller{}, results).assertFields(t, "task.result", "null")
		b.mustQuery(t, b.registerAgent(t, ""), results).assertFields(t, "task.result", "null")
	}
	for range 2 {
		if got := b.query(t, poster, `{ task(id: "unknown") { id } }`); got.code() != "NOT_FOUND" {
			t.Errorf("got %v", got)
		}
	}
}

// TestCache_httpRequests checks that equal requests over HTTP get equal responses for every
// media type, and that mutations and errors are not cached.
func TestCache_httpRequests(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, "")
	b.postTask(t, poster, "budget: 5")
	document := `{ agents { nodes { name } } viewer { wallet { balance } } }`
	body := fmt.Appendf(nil, `{"query": %q}`, document)
	send := func(c caller, method, query string, body []byte, accept string) string {
		got := b.send(t, c, method, query, body, "Content-Type", "application/json", "Accept", accept)
		if media := got.header.Get("Content-Type"); got.status != http.StatusOK || media != accept+"; charset=utf-8" || got.header.Get("Vary") != "Accept" {
			t.Errorf("status %d, %s", got.status, media)
		}
		return fmt.Sprint(got.Data)
	}
	for range 3 {
		for _, accept := range []string{"application/json", "application/graphql-response+json"} {
			stranger := send(caller{}, http.MethodPost, "", body, accept)
			if got := send(caller{}, http.MethodGet, "?query="+url.QueryEscape(document), nil, accept); got != stranger {
				t.Errorf("GET: %s, POST: %s", got, stranger)
			}
			if got := send(poster, http.MethodPost, "", body, accept); got == stranger || !strings.Contains(got, "95") {
				t.Errorf("the poster gets %s", got)
			}
		}
	}
	first, second := b.postTask(t, poster, "budget: 5"), b.postTask(t, poster, "budget: 5")
	if first == second {
		t.Error("a mutation was served from the cache")
	}
	for range 2 {
		if got := b.query(t, caller{}, `{ tasks(first: 101) { totalCount } }`); got.code() != "INVALID_INPUT" || got.Errors[0].Extensions["requestId"] == nil {
			t.Errorf("got %v", got)
		}
	}
}

// TestCache_expiresWithTime checks that a response expires when time changes a task.
func TestCache_expiresWithTime(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, "")
	const list = `{ tasks(filter: {status: [OPEN]}) { totalCount } }`
	b.postTask(t, poster, "budget: 5, openForMinutes: 10")
	taken := b.postTask(t, poster, "budget: 5, openForMinutes: 30, leaseMinutes: 20")
	b.mustQuery(t, worker, fmt.Sprintf(`mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, taken))
	for _, step := range []struct {
		minutes int
		open    string
	}{
		{0, "1"}, {9, "1"}, {1, "0"}, // the first has expired
		{9, "0"}, {1, "1"}, // the lease of the second ends
		{19, "1"}, {1, "0"}, // and its offer is over, one lease later
		{-1, "1"}, {1, "0"}, // a clock that is set back
	} {
		b.Clock.Advance(time.Duration(step.minutes) * time.Minute)
		for range 2 {
			b.mustQuery(t, poster, list).assertFields(t, "tasks.totalCount", step.open)
		}
	}
}

// TestCache_matchesUncached compares, after random operations, a query that may be cached
// with one that was never sent before.
func TestCache_matchesUncached(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.Settings.StartingCredits = 10_000
	callers := []caller{{}, b.registerAgent(t, ""), b.registerAgent(t, ""), b.registerAgent(t, "")}
	var tasks []string
	random := rand.New(rand.NewPCG(1, 2))
	for step := range 60 {
		c := callers[1+random.IntN(3)]
		switch random.IntN(6) {
		case 0, 1:
			tasks = append(tasks, b.postTask(t, c, fmt.Sprintf("budget: 5, openForMinutes: %d, leaseMinutes: 10", 1+random.IntN(60))))
		case 2:
			b.Clock.Advance(time.Duration(random.IntN(20)) * time.Minute)
		case 3:
			testutil.Must(t, b.Sweep(t.Context()))
		default:
			if len(tasks) > 0 { // may be rejected
				verb := []string{"acceptTask", "completeTask", "cancelTask", "releaseTask", "rateTask"}[random.IntN(5)]
				members := map[string]string{"completeTask": `, result: "done"`, "rateTask": ", score: 4"}[verb]
				b.query(t, c, fmt.Sprintf(`mutation { %s(input: {taskId: %q%s}) { task { id } } }`, verb, tasks[random.IntN(len(tasks))], members))
			}
		}
		for _, c := range callers {
			documents := []string{
				`{ viewer { agent { completedTaskCount } wallet { balance heldBalance } } }`,
				fmt.Sprintf(`{ agent(id: %q) { completedTaskCount reputationScore } }`, callers[1].id),
				`{ tasks { totalCount nodes { id status result poster { completedTaskCount } worker { id } } } }`,
				`{ tasks(filter: {status: [OPEN]}) { nodes { id } } agents { nodes { completedTaskCount } } }`,
				`{ viewer { wallet { balance heldBalance entries { nodes { amount task { status } } } } workedTasks { totalCount } } }`,
			}
			for _, task := range tasks[max(0, len(tasks)-4):] {
				documents = append(documents, fmt.Sprintf(`{ task(id: %q) { status result rating { score } poster { completedTaskCount reputationScore } worker { completedTaskCount } } }`, task))
			}
			for _, document := range documents {
				got, want := b.mustQuery(t, c, document), b.mustQuery(t, c, fmt.Sprintf("%s # never sent before: %d", document, step))
				if fmt.Sprint(got.Data) != fmt.Sprint(want.Data) {
					t.Fatalf("step %d: %s\nreturns %v\nwant    %v", step, document, got.Data, want.Data)
				}
			}
		}
	}
}
