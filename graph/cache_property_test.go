package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/test/testutil"
)

// TestCache_matchesUncachedProperty sends random queries between random operations and
// compares each response with that of a server without a cache.
func TestCache_matchesUncachedProperty(t *testing.T) {
	t.Parallel()
	var cached, differed atomic.Int64
	p := newCachePair(t) // one market for all runs
	rapid.Check(t, func(r *rapid.T) {
		p.requests = nil
		r.Repeat(map[string]func(*rapid.T){
			"post": p.postRandomTask,
			"move": p.advanceRandomTask,
			"hire": p.hireRandomAgent,
			"jump": func(r *rapid.T) {
				p.Clock.Advance(time.Duration(rapid.IntRange(-5, 40).Draw(r, "minutes")) * time.Minute)
			},
			"query": func(r *rapid.T) {
				p.requests = append(p.requests, randomQuery(r, p.ids))
				p.compare(r, p.requests[len(p.requests)-1], &cached, &differed)
			},
			"repeat a query": func(r *rapid.T) {
				if len(p.requests) > 0 {
					p.compare(r, rapid.SampledFrom(p.requests).Draw(r, "earlier"), &cached, &differed)
				}
			},
		})
	})
	least := int64(10)
	if testing.Short() { // a fifth of the runs
		least = 2
	}
	if cached.Load() < 10*least || differed.Load() < least {
		t.Errorf("%d responses were cached and %d differed by caller: too few for the test to prove anything", cached.Load(), differed.Load())
	}
}

// cachePair is two servers for one market, one with a cache and one without.
type cachePair struct {
	*bundle
	cached, uncached http.Handler
	callers          []caller
	tasks, ids       []string
	requests         [][]byte
}

func newCachePair(t *testing.T) *cachePair {
	t.Helper()
	b := newBundle(t)
	b.Settings.StartingCredits = 10_000
	plain, err := NewServer(b.resolver, ServerOptions{Introspection: true, Keys: b.Keys, Logger: b.Logger})
	testutil.Must(t, err)
	p := &cachePair{bundle: b, cached: b.authenticate(b.server), uncached: b.authenticate(plain)}
	p.callers = []caller{{}}
	for range 3 {
		c := b.registerAgent(t, `capabilities: ["x"], endpointUrl: "https://agent.example.com/"`)
		p.callers, p.ids = append(p.callers, c), append(p.ids, c.id)
	}
	return p
}

// serve sends a request to a server.
func (p *cachePair) serve(h http.Handler, c caller, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/graphql", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if c.key != "" {
		r.Header.Set("X-Api-Key", c.key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// mutate sends a mutation, which may be rejected, to the server with a cache.
func (p *cachePair) mutate(r *rapid.T, mutation string) string {
	c := rapid.SampledFrom(p.callers[1:]).Draw(r, "caller")
	body, err := json.Marshal(map[string]string{"query": mutation})
	if err != nil {
		r.Fatal(err)
	}
	return p.serve(p.cached, c, body).Body.String()
}

func (p *cachePair) postRandomTask(r *rapid.T) {
	p.recordTask(p.mutate(r, fmt.Sprintf(`mutation { out: postTask(input: {title: "Task", description: "D", budget: %d, requiredCapabilities: ["x"], openForMinutes: %d, leaseMinutes: 10}) { task { id } } }`,
		rapid.IntRange(2, 9).Draw(r, "budget"), rapid.IntRange(1, 60).Draw(r, "minutes"))))
}

func (p *cachePair) hireRandomAgent(r *rapid.T) {
	p.recordTask(p.mutate(r, fmt.Sprintf(`mutation { out: execute(input: {agentId: %q, taskDescription: "D", budget: 10}) { task { id } } }`,
		rapid.SampledFrom(p.ids[:3]).Draw(r, "agent"))))
}

// recordTask stores the id of a task from a response.
func (p *cachePair) recordTask(body string) {
	var created struct {
		Data struct {
			Out struct{ Task struct{ ID string } }
		}
	}
	if json.Unmarshal([]byte(body), &created) == nil && created.Data.Out.Task.ID != "" {
		p.tasks, p.ids = append(p.tasks, created.Data.Out.Task.ID), append(p.ids, created.Data.Out.Task.ID)
	}
}

func (p *cachePair) advanceRandomTask(r *rapid.T) {
	if len(p.tasks) == 0 {
		return
	}
	verb := rapid.SampledFrom([]string{"acceptTask", "completeTask", "cancelTask", "releaseTask", "rateTask"}).Draw(r, "verb")
	members := map[string]string{"completeTask": `, result: "done"`, "rateTask": ", score: 4"}[verb]
	p.mutate(r, fmt.Sprintf(`mutation { %s(input: {taskId: %q%s}) { task { id } } }`, verb, rapid.SampledFrom(p.tasks).Draw(r, "task"), members))
}

// compare sends a query to both servers, twice as an anonymous caller and as an agent.
func (p *cachePair) compare(r *rapid.T, body []byte, cached, differed *atomic.Int64) {
	var first string
	for i, c := range []caller{{}, rapid.SampledFrom(p.callers[1:]).Draw(r, "caller")} {
		want := p.serve(p.uncached, c, body)
		for range 2 {
			before := p.readCount.Load()
			got := p.serve(p.cached, c, body)
			if got.Code != want.Code || !sameResponse(got.Body.Bytes(), want.Body.Bytes()) || !slices.Equal(got.Header()["Content-Type"], want.Header()["Content-Type"]) {
				r.Fatalf("%s\nreturns %d %s\nand without a cache %d %s", body, got.Code, got.Body, want.Code, want.Body)
			}
			if p.readCount.Load() == before && !strings.Contains(got.Body.String(), `"errors"`) {
				cached.Add(1)
			}
		}
		if i == 0 {
			first = want.Body.String()
		} else if want.Body.String() != first {
			differed.Add(1)
		}
	}
}

// sameResponse compares bodies. Errors may be in any order.
func sameResponse(a, b []byte) bool {
	return bytes.Equal(a, b) || bytes.Contains(a, []byte(`"errors"`)) && slices.Equal(sortedErrors(a), sortedErrors(b))
}

func sortedErrors(body []byte) []string {
	var parts struct {
		Data   json.RawMessage
		Errors []json.RawMessage
	}
	if json.Unmarshal(body, &parts) != nil {
		return []string{string(body)}
	}
	out := []string{string(parts.Data)}
	for _, e := range parts.Errors {
		out = append(out, string(e))
	}
	slices.Sort(out[1:])
	return out
}

// TestCache_neverStale checks that, during concurrent writes, a response includes every
// write that was acknowledged before the request.
func TestCache_neverStale(t *testing.T) {
	t.Parallel()
	const posts, budget = 150, 2
	b := newBundle(t)
	b.Settings.StartingCredits = 1000
	poster := b.registerAgent(t, "")
	p := &cachePair{bundle: b, cached: b.authenticate(b.server)}
	body := []byte(`{"query":"{ tasks { totalCount } viewer { wallet { balance } } }"}`)
	var acknowledged atomic.Int64
	var readers sync.WaitGroup
	for _, c := range []caller{poster, poster, poster, {}, {}} {
		readers.Go(func() {
			for seen := int64(0); seen < posts; {
				seen = acknowledged.Load()
				var got struct {
					Data struct {
						Tasks  struct{ TotalCount int64 }
						Viewer *struct{ Wallet struct{ Balance int64 } }
					}
				}
				raw := p.serve(p.cached, c, body).Body.Bytes()
				if err := json.Unmarshal(raw, &got); err != nil || got.Data.Tasks.TotalCount < seen ||
					(got.Data.Viewer != nil) != (c.key != "") || got.Data.Viewer != nil && got.Data.Viewer.Wallet.Balance > 1000-seen*budget {
					t.Errorf("after %d posts: %s, %v", seen, raw, err)
					return
				}
			}
		})
	}
	for range posts {
		b.postTask(t, poster, fmt.Sprintf("budget: %d", budget))
		acknowledged.Add(1)
	}
	readers.Wait()
}
