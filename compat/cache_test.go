package compat

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"
	"pgregory.net/rapid"

	"agentmarket.space/server/graph"
	"agentmarket.space/server/internal/test/testutil"
)

// cachePair is two REST handlers of one market, with and without a cache.
type cachePair struct {
	*bundle
	uncached http.Handler
	callers  []caller
	tasks    []string
}

func newCachePair(t *testing.T) *cachePair {
	t.Helper()
	b := newBundle(t)
	b.Settings.StartingCredits = 100_000
	resolver := &graph.Resolver{Market: b.Market, Events: b.Log, Webhooks: b.hooks}
	r := &cachePair{bundle: b, uncached: b.authenticate(New(resolver, Options{Version: "1.0.0", PublicURL: "https://agentmarket.space", Logger: b.Logger}))}
	for range 2 {
		r.callers = append(r.callers, b.registerAgent(t, "Agent", `,"capabilities":["research"]`))
	}
	return r
}

// serveRequest sends a request to a handler.
func serveRequest(h http.Handler, method, path, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.Background(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("X-Api-Key", key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestCache_matchesUncachedProperty changes a market at random and reads every route
// with and without the cache. The responses are equal, including headers.
func TestCache_matchesUncachedProperty(t *testing.T) {
	t.Parallel()
	r := newCachePair(t) // all runs share one market
	rapid.Check(t, func(rt *rapid.T) {
		rt.Repeat(map[string]func(*rapid.T){
			"post": func(rt *rapid.T) {
				r.tasks = append(r.tasks, r.postTask(t, rapid.SampledFrom(r.callers).Draw(rt, "poster")))
			},
			"transition": func(rt *rapid.T) {
				if len(r.tasks) == 0 {
					return
				}
				verb := rapid.SampledFrom([]string{"accept", "complete", "cancel", "release", "rate"}).Draw(rt, "verb")
				body := map[string]string{"complete": `{"result":"done"}`, "rate": `{"score":4}`}[verb]
				path := "/api/tasks/" + rapid.SampledFrom(r.tasks).Draw(rt, "task") + "/" + verb
				serveRequest(r.handler, http.MethodPost, path, rapid.SampledFrom(r.callers).Draw(rt, "caller").key, body)
			},
			"webhook": func(rt *rapid.T) {
				serveRequest(r.handler, http.MethodPut, "/api/agents/me/webhook", rapid.SampledFrom(r.callers).Draw(rt, "caller").key,
					fmt.Sprintf(`{"webhook_url":"https://hooks.example.com/%d"}`, rapid.IntRange(1, 9).Draw(rt, "path")))
			},
			"advance clock": func(rt *rapid.T) {
				r.Clock.Advance(time.Duration(rapid.IntRange(-60, 24*60).Draw(rt, "minutes")) * time.Minute)
			},
			"": func(rt *rapid.T) { r.compare(rt, rapid.SampledFrom(r.readPaths()).Draw(rt, "path")) },
		})
	})
}

// readPaths returns valid and invalid paths to read.
func (r *cachePair) readPaths() []string {
	paths := []string{
		"/api/agents", "/api/agents?capability=research&limit=1", "/api/agents/me", "/api/agents/me/webhook", "/api/wallet",
		"/api/tasks", "/api/tasks?limit=1", "/api/tasks?status=open", "/api/tasks?status=completed&status=expired", "/api/tasks?status=no",
		"/api/tasks?limit=%zz", "/api/tasks/unknown", "/api/agents/" + r.callers[0].id, "/openapi.json",
	}
	for _, task := range r.tasks {
		paths = append(paths, "/api/tasks/"+task)
	}
	return paths
}

// compare reads a path twice from both handlers, as any caller.
func (r *cachePair) compare(rt *rapid.T, path string) {
	key := rapid.SampledFrom([]string{"", r.callers[0].key, r.callers[1].key}).Draw(rt, "key")
	method := rapid.SampledFrom([]string{http.MethodGet, http.MethodGet, http.MethodHead}).Draw(rt, "method")
	want := serveRequest(r.uncached, method, path, key, "")
	for range 2 {
		got := serveRequest(r.handler, method, path, key, "")
		if got.Code != want.Code || got.Body.String() != want.Body.String() || fmt.Sprint(got.Header()) != fmt.Sprint(want.Header()) {
			rt.Fatalf("%s %s: cached %d %v %s\nuncached %d %v %s",
				method, path, got.Code, got.Header(), got.Body, want.Code, want.Header(), want.Body)
		}
	}
}

// TestCache_invalidation checks that a repeated read executes no statement until
// something is written.
func TestCache_invalidation(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, other := b.registerAgent(t, "Agent", ""), b.registerAgent(t, "Agent", "")
	task := b.postTask(t, poster)
	statements := countStatements(t, b)
	for _, path := range []string{"/api/tasks?limit=1", "/api/tasks/" + task, "/api/agents/me", "/api/wallet"} {
		for _, key := range []string{poster.key, other.key} {
			before := statements.Load()
			first := b.send(t, request{method: http.MethodGet, path: path, key: key})
			if statements.Load() == before {
				t.Errorf("the first read of %s was cached", path)
			}
			before = statements.Load()
			again := b.send(t, request{method: http.MethodGet, path: path, key: key})
			if statements.Load() != before || string(again.raw) != string(first.raw) {
				t.Errorf("%s executed %d statements: %s", path, statements.Load()-before, again.raw)
			}
		}
	}
	b.postTask(t, poster)
	if got := b.send(t, request{method: http.MethodGet, path: "/api/wallet", key: poster.key}); got.body["balance"] != 50.0 {
		t.Errorf("balance after a write: %s", got.raw)
	}
}

// countStatements counts the read statements from now on.
func countStatements(t *testing.T, b *bundle) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	count := func(*gorm.DB) { n.Add(1) }
	callbacks := b.DB.Read(t.Context()).Callback()
	testutil.Must(t, callbacks.Query().Register("test:count", count))
	testutil.Must(t, callbacks.Row().Register("test:count", count))
	return &n
}
