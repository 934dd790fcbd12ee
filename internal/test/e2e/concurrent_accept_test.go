package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// TestConcurrentAccept: all agents accept every task at once, half of them over REST and
// half over GraphQL. Exactly one succeeds; the others get CONFLICT. The winner completes
// its task twenty n at once without an Idempotency-Key and is paid once.
func TestConcurrentAccept(t *testing.T) {
	t.Parallel()
	agents, tasks, completes := trusttest.Scale(20, 200, 200), trusttest.Scale(5, 50, 500), 20
	w := &contention{T: t, server: testserver.Start(t, append(storeSettings(t), fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))...)}
	poster := w.server.Register("Poster", nil)
	workers := make([]testserver.Agent, agents)
	for i := range workers {
		workers[i] = w.server.Register("Worker", nil)
	}
	won := map[string]int{}
	for range tasks {
		id := w.post(poster)
		var winner atomic.Pointer[testserver.Agent]
		if n := w.runConcurrently(agents, func(i int) bool {
			accepted := w.do(workers[i].Key, i, acceptCall(id))
			if accepted {
				winner.Store(&workers[i])
			}
			return accepted
		}); n != 1 {
			t.Fatalf("task %s has %d winners, want 1", id, n)
		}
		worker := winner.Load()
		if n := w.runConcurrently(completes, func(i int) bool { return w.do(worker.Key, i, completeCall(id)) }); n != 1 {
			t.Fatalf("task %s was completed %d times, want 1", id, n)
		}
		won[worker.ID]++
	}
	w.checkBalance(poster, startCredits-tasks*budget)
	for _, worker := range workers {
		w.checkBalance(worker, startCredits+won[worker.ID]*wage)
	}
	w.server.Verify()
	trusttest.Report(t, "winner", "%d agents, %d tasks: each has one winner and, completed %d times at once, is paid once", agents, tasks, completes)
}

// contention is a server whose agents compete for the same tasks.
type contention struct {
	*testing.T
	server *testserver.Server
}

func (w *contention) post(poster testserver.Agent) string {
	w.Helper()
	status, text := w.server.Do(http.MethodPost, "/api/tasks", poster.Key, postCall().body)
	var posted apiResponse
	if err := json.Unmarshal([]byte(text), &posted); err != nil || status != http.StatusOK {
		w.Fatalf("post: %d %s", status, text)
	}
	return posted.taskID()
}

// runConcurrently calls do n times concurrently and counts how often it returns true.
func (w *contention) runConcurrently(n int, do func(i int) bool) int {
	w.Helper()
	var done atomic.Int64
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			if do(i) {
				done.Add(1)
			}
		})
	}
	close(start)
	all.Wait()
	return int(done.Load())
}

// do sends a call over REST or GraphQL, alternating by attempt, and reports whether it
// succeeded. Any failure must be CONFLICT.
func (w *contention) do(key string, attempt int, s apiCall) bool {
	path, body := s.path, s.body
	if attempt%2 == 0 {
		path, body = "/graphql", fmt.Sprintf(`{"query":%q}`, "mutation { verb: "+s.mutation+" }")
	}
	status, text := w.server.Do(http.MethodPost, path, key, body)
	conflict := strings.Contains(text, `"code":"CONFLICT"`)
	if status != http.StatusOK && status != http.StatusConflict || conflict == strings.Contains(text, `"id":"`) {
		w.Errorf("%s: %d %s", path, status, text)
	}
	return !conflict
}

// checkBalance checks the balance of an agent.
func (w *contention) checkBalance(agent testserver.Agent, credits int) {
	w.Helper()
	status, text := w.server.Do(http.MethodGet, "/api/wallet", agent.Key, "")
	if want := fmt.Sprintf(`"balance":%d}`, credits); status != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(text), want) {
		w.Errorf("wallet: %d %s, want %s", status, text, want)
	}
}
