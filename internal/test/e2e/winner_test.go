package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/program"
	"agentmarket.space/server/internal/test/trust/claim"
)

// TestWinner: all agents want every task at once, half of them by REST and half
// by GraphQL. One gets each, the others are told CONFLICT. Each winner completes
// its tasks twenty times at once, without an Idempotency-Key: once it is done and
// paid.
func TestWinner(t *testing.T) {
	t.Parallel()
	agents, tasks, completes := claim.Size(20, 200, 200), claim.Size(5, 50, 500), 20
	w := &wanted{T: t, server: program.Start(t, append(store(t), fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))...)}
	poster := w.server.Register("Poster", nil)
	workers := make([]program.Agent, agents)
	for i := range workers {
		workers[i] = w.server.Register("Worker", nil)
	}
	won := map[string]int{}
	for range tasks {
		id := w.post(poster)
		var winner atomic.Pointer[program.Agent]
		if n := w.atOnce(agents, func(i int) bool {
			accepted := w.do(workers[i].Key, i, acceptance(id))
			if accepted {
				winner.Store(&workers[i])
			}
			return accepted
		}); n != 1 {
			t.Fatalf("task %s has %d winners, want 1", id, n)
		}
		worker := winner.Load()
		if n := w.atOnce(completes, func(i int) bool { return w.do(worker.Key, i, completion(id)) }); n != 1 {
			t.Fatalf("task %s was completed %d times, want 1", id, n)
		}
		won[worker.ID]++
	}
	w.has(poster, startCredits-tasks*budget)
	for _, worker := range workers {
		w.has(worker, startCredits+won[worker.ID]*wage)
	}
	w.server.Verify()
	claim.Shown(t, "winner", "%d agents, %d tasks, each won once and, completed %d times at once, paid once", agents, tasks, completes)
}

// wanted is a market where everybody wants the same.
type wanted struct {
	*testing.T
	server *program.Server
}

func (w *wanted) post(poster program.Agent) string {
	w.Helper()
	status, text := w.server.Do(http.MethodPost, "/api/tasks", poster.Key, posting().body)
	var posted answer
	if err := json.Unmarshal([]byte(text), &posted); err != nil || status != http.StatusOK {
		w.Fatalf("post: %d %s", status, text)
	}
	return posted.task()
}

// atOnce does something so many times at once and counts how often it was done.
func (w *wanted) atOnce(times int, do func(i int) bool) int {
	w.Helper()
	var done atomic.Int64
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range times {
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

// do takes a step through one door or the other and reports whether it was done.
// Whoever is too late must be told so.
func (w *wanted) do(key string, door int, s step) bool {
	path, body := s.path, s.body
	if door%2 == 0 {
		path, body = "/graphql", fmt.Sprintf(`{"query":%q}`, "mutation { verb: "+s.mutation+" }")
	}
	status, text := w.server.Do(http.MethodPost, path, key, body)
	late := strings.Contains(text, `"code":"CONFLICT"`)
	if status != http.StatusOK && status != http.StatusConflict || late == strings.Contains(text, `"id":"`) {
		w.Errorf("%s: %d %s", path, status, text)
	}
	return !late
}

// has wants an agent to have so many credits.
func (w *wanted) has(agent program.Agent, credits int) {
	w.Helper()
	status, text := w.server.Do(http.MethodGet, "/api/wallet", agent.Key, "")
	if want := fmt.Sprintf(`"balance":%d}`, credits); status != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(text), want) {
		w.Errorf("a wallet is %d %s, want %s", status, text, want)
	}
}
