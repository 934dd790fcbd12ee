package e2e_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestKill_promisedHires kills the server while agents hire one that responds with 202 and
// completes with its own key, and cancel some hires. Clients retry with the same
// Idempotency-Key. In the end each hire was made once, its agent called at most once, and
// its state is the acknowledged one: completed and paid, or cancelled and refunded. A hire
// whose call was interrupted is refunded.
func TestKill_promisedHires(t *testing.T) {
	t.Parallel()
	p := &promisedHires{T: t, jobs: make(chan string, 100_000), hires: map[string]string{}}
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct{ Task struct{ ID string } }
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		p.jobs <- call.Task.ID
		w.WriteHeader(http.StatusAccepted)
	}))
	p.server = testserver.Start(t, append(env, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))...)
	p.poster, p.worker = p.server.Register("Poster", nil), p.server.Register("Worker", map[string]any{"endpointUrl": url})
	var hiring, working sync.WaitGroup
	for range 2 {
		hiring.Go(p.hire)
		working.Go(p.work)
	}
	for range 5 {
		enough := p.responses.Load() + int64(20+rand.IntN(50))
		testutil.Eventually(t, "responses", func() bool { return p.responses.Load() >= enough })
		p.serverDown.Lock()
		p.server.Kill()
		p.server.Restart()
		p.serverDown.Unlock()
	}
	p.stopped.Store(true)
	hiring.Wait()
	testutil.Eventually(t, "every hire to end", func() bool { return len(p.jobs) == 0 && p.count("assigned") == 0 })
	close(p.jobs)
	working.Wait()

	completed := p.count("completed")
	if total := completed + p.count("cancelled") + p.count("failed"); total != len(p.hires) {
		t.Errorf("%d hires exist, %d were acknowledged", total, len(p.hires))
	}
	for id, status := range p.hires {
		if got := p.status(id); status != "" && got != status || status == "" && got != "failed" {
			t.Errorf("a hire acknowledged as %q is %s", status, got)
		}
	}
	if got := p.balance(p.poster); got != startCredits-budget*completed {
		t.Errorf("the hirer has %d credits after %d results", got, completed)
	}
	if got := p.balance(p.worker); got != startCredits+wage*completed {
		t.Errorf("the agent has %d credits after %d results", got, completed)
	}
	t.Logf("%d responses, %d hires, %d completed, %d cancelled, %d refunded", p.responses.Load(), len(p.hires), completed, p.count("cancelled"), p.count("failed"))
	if completed == 0 || p.count("cancelled") == 0 {
		t.Error("no hire was completed, or none was cancelled")
	}
	p.server.Stop()
	p.server.Verify()
}

// promisedHires is a market with asynchronous hires whose server is killed.
type promisedHires struct {
	*testing.T
	server         *testserver.Server
	poster, worker testserver.Agent
	jobs           chan string  // tasks for which the agent was called
	serverDown     sync.RWMutex // locked while the server is down
	stopped        atomic.Bool
	responses      atomic.Int64

	mu    sync.Mutex
	hires map[string]string // acknowledged final state by ID; "" for none
}

// do sends a request until there is a response.
func (p *promisedHires) do(agent testserver.Agent, path, body, key string) (status int, text string) {
	for status == 0 && p.Context().Err() == nil {
		p.serverDown.RLock()
		p.serverDown.RUnlock() //nolint:staticcheck // waits until the server is up
		status, text = p.server.Do(http.MethodPost, path, agent.Key, body, "Idempotency-Key", key, "Prefer", "respond-async")
	}
	p.responses.Add(1)
	return status, text
}

// hire hires agents until the test stops, and cancels every third hire.
func (p *promisedHires) hire() {
	for n := 0; !p.stopped.Load(); n++ {
		body := fmt.Sprintf(`{"agent_id":%q,"task_description":"Do it.","budget":%d}`, p.worker.ID, budget)
		status, text := p.do(p.poster, "/api/execute", body, fmt.Sprintf("hire %d %d", n, rand.Int64()))
		var answer struct {
			Data struct {
				TaskID string `json:"task_id"`
			}
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusAccepted {
			p.Errorf("%d %s", status, text)
			return
		}
		id := answer.Data.TaskID
		p.recordEnd(id, "")
		if n%3 == 0 {
			p.endHire(p.poster, id, "cancel", "cancelled")
		}
	}
}

// work completes each task once.
func (p *promisedHires) work() {
	for id := range p.jobs {
		p.endHire(p.worker, id, "complete", "completed")
	}
}

// endHire completes or cancels a hire, unless it has ended already.
func (p *promisedHires) endHire(by testserver.Agent, id, verb, as string) {
	switch status, text := p.do(by, "/api/tasks/"+id+"/"+verb, `{"result":"Done."}`, verb+" "+id); status {
	case http.StatusOK:
		p.recordEnd(id, as)
	case http.StatusConflict:
	default:
		p.Errorf("%s: %d %s", verb, status, text)
	}
}

// recordEnd records the acknowledged final state of a hire.
func (p *promisedHires) recordEnd(id, as string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hires[id] != "" && as != "" {
		p.Errorf("a hire is %s and %s", p.hires[id], as)
	}
	if as != "" || p.hires[id] == "" {
		p.hires[id] = as
	}
}

func (p *promisedHires) status(id string) string {
	_, text := p.server.Do(http.MethodGet, "/api/tasks/"+id, p.poster.Key, "")
	var answer struct{ Data struct{ Status string } }
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		p.Errorf("%v in %s", err, text)
	}
	return answer.Data.Status
}

// count counts the hires in a state.
func (p *promisedHires) count(status string) int {
	var data struct {
		Viewer struct {
			PostedTasks struct{ TotalCount int }
		}
	}
	query := `query($status: [TaskStatus!]) { viewer { postedTasks(status: $status) { totalCount } } }`
	if err := p.server.Query(p.poster.Key, query, map[string]any{"status": strings.ToUpper(status)}, &data); err != nil {
		p.Fatal(err)
	}
	return data.Viewer.PostedTasks.TotalCount
}

func (p *promisedHires) balance(agent testserver.Agent) int {
	var data struct {
		Viewer struct{ Wallet struct{ Balance int } }
	}
	if err := p.server.Query(agent.Key, "{ viewer { wallet { balance } } }", nil, &data); err != nil {
		p.Fatal(err)
	}
	return data.Viewer.Wallet.Balance
}
