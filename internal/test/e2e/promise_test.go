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

	"agentmarket.space/server/internal/test/e2e/program"
)

// TestKill_promises kills the server while agents hire one that answers 202 and
// completes with its own key, and cancel some of it. Whoever got no answer asks
// again with the same Idempotency-Key. In the end each hire was made once, its
// agent called once at most, and it is what was acknowledged: completed and paid,
// or cancelled and given back; what the server was still calling for is given back.
func TestKill_promises(t *testing.T) {
	t.Parallel()
	p := &promising{T: t, jobs: make(chan string, 100_000), hires: map[string]string{}}
	url, env := program.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct{ Task struct{ ID string } }
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		p.jobs <- call.Task.ID
		w.WriteHeader(http.StatusAccepted)
	}))
	p.server = program.Start(t, append(env, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))...)
	p.poster, p.worker = p.server.Register("Poster", nil), p.server.Register("Worker", map[string]any{"endpointUrl": url})
	var hiring, working sync.WaitGroup
	for range 2 {
		hiring.Go(p.hire)
		working.Go(p.work)
	}
	for range 5 {
		enough := p.answers.Load() + int64(20+rand.IntN(50))
		eventually(t, "requests are answered", func() bool { return p.answers.Load() >= enough })
		p.down.Lock()
		p.server.Kill()
		p.server.Restart()
		p.down.Unlock()
	}
	p.over.Store(true)
	hiring.Wait()
	eventually(t, "every hire to end", func() bool { return len(p.jobs) == 0 && p.count("assigned") == 0 })
	close(p.jobs)
	working.Wait()

	completed := p.count("completed")
	if all := completed + p.count("cancelled") + p.count("failed"); all != len(p.hires) {
		t.Errorf("there are %d hires, %d were acknowledged", all, len(p.hires))
	}
	for id, status := range p.hires {
		if got := p.status(id); status != "" && got != status || status == "" && got != "failed" {
			t.Errorf("a hire that was acknowledged as %q is %s", status, got)
		}
	}
	if got := p.balance(p.poster); got != startCredits-budget*completed {
		t.Errorf("who hired has %d credits after %d results", got, completed)
	}
	if got := p.balance(p.worker); got != startCredits+wage*completed {
		t.Errorf("the agent has %d credits after %d results", got, completed)
	}
	t.Logf("%d answers, %d hires, %d completed, %d cancelled, %d given back", p.answers.Load(), len(p.hires), completed, p.count("cancelled"), p.count("failed"))
	if completed == 0 || p.count("cancelled") == 0 {
		t.Error("nothing was completed, or nothing cancelled")
	}
	p.server.Stop()
	p.server.Verify()
}

// promising is a market of hires whose server is killed.
type promising struct {
	*testing.T
	server         *program.Server
	poster, worker program.Agent
	jobs           chan string  // the tasks that the agent was called for
	down           sync.RWMutex // locked while there is no server
	over           atomic.Bool
	answers        atomic.Int64

	mu    sync.Mutex
	hires map[string]string // what each was acknowledged to be in the end; empty for nothing
}

// do asks until it is answered.
func (p *promising) do(agent program.Agent, path, body, key string) (status int, text string) {
	for status == 0 && p.Context().Err() == nil {
		p.down.RLock()
		p.down.RUnlock() //nolint:staticcheck // it waits until there is a server
		status, text = p.server.Do(http.MethodPost, path, agent.Key, body, "Idempotency-Key", key, "Prefer", "respond-async")
	}
	p.answers.Add(1)
	return status, text
}

// hire hires until the end, and cancels every third hire.
func (p *promising) hire() {
	for n := 0; !p.over.Load(); n++ {
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
		p.ends(id, "")
		if n%3 == 0 {
			p.end(p.poster, id, "cancel", "cancelled")
		}
	}
}

// work completes what the agent is called for, once each.
func (p *promising) work() {
	for id := range p.jobs {
		p.end(p.worker, id, "complete", "completed")
	}
}

// end has an agent end a hire, unless it has ended otherwise.
func (p *promising) end(by program.Agent, id, verb, as string) {
	switch status, text := p.do(by, "/api/tasks/"+id+"/"+verb, `{"result":"Done."}`, verb+" "+id); status {
	case http.StatusOK:
		p.ends(id, as)
	case http.StatusConflict:
	default:
		p.Errorf("%s: %d %s", verb, status, text)
	}
}

// ends notes what a hire was acknowledged to be.
func (p *promising) ends(id, as string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hires[id] != "" && as != "" {
		p.Errorf("a hire is %s and %s", p.hires[id], as)
	}
	if as != "" || p.hires[id] == "" {
		p.hires[id] = as
	}
}

func (p *promising) status(id string) string {
	_, text := p.server.Do(http.MethodGet, "/api/tasks/"+id, p.poster.Key, "")
	var answer struct{ Data struct{ Status string } }
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		p.Errorf("%v in %s", err, text)
	}
	return answer.Data.Status
}

// count counts the hires in a state, of all there are.
func (p *promising) count(status string) int {
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

func (p *promising) balance(agent program.Agent) int {
	var data struct {
		Viewer struct{ Wallet struct{ Balance int } }
	}
	if err := p.server.Query(agent.Key, "{ viewer { wallet { balance } } }", nil, &data); err != nil {
		p.Fatal(err)
	}
	return data.Viewer.Wallet.Balance
}
