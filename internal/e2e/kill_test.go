package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/e2e/program"
)

const (
	kills        = 20
	startCredits = 1_000_000
	budget       = 25 // of each task: 22 to the worker, 3 to the platform
	wage         = 22
)

// TestKill kills the server twenty times while agents trade. Whoever got no
// answer asks again with the same Idempotency-Key, as any careful client would.
// In the end everything that was acknowledged is there, once; the books hold;
// every posted task has reached every webhook.
func TestKill(t *testing.T) {
	t.Parallel()
	heard := &told{tasks: map[string]int{}}
	url, env := program.Listen(t, heard)
	k := &killed{T: t, server: program.Start(t, append(env, quickRetry, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))...)}
	for range 3 {
		k.posters = append(k.posters, k.server.Register("Poster", nil))
		k.workers = append(k.workers, k.server.Register("Worker", map[string]any{
			"capabilities": []string{"work"}, "webhookUrl": url + "/webhook", "endpointUrl": url + "/execute",
		}))
	}
	var trading sync.WaitGroup
	for i := range k.posters {
		trading.Go(func() { k.trade(i) })
		trading.Go(func() { k.hire(i) })
	}
	for round := range kills {
		k.awaitAnswers(int64(rand.IntN(100)))
		k.down.Lock()
		k.server.Kill()
		k.server.Restart()
		k.down.Unlock()
		if round%5 == 0 {
			k.server.Verify() // while it serves
		}
	}
	k.over.Store(true)
	trading.Wait()

	k.checkTasks()
	k.checkBalances()
	heard.await(t, slices.Collect(maps.Keys(k.tasks())), len(k.workers))
	t.Logf("%d answers over %d kills, %d tasks, %d hires; webhooks came %d times more than once",
		k.answers.Load(), kills, len(k.tasks()), len(k.hires), heard.twice())
	if code := k.server.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	k.server.Verify()
}

// killed is a market whose server is killed again and again.
type killed struct {
	*testing.T
	server           *program.Server
	posters, workers []program.Agent
	down             sync.RWMutex // locked while there is no server
	over             atomic.Bool
	answers          atomic.Int64
	requests         atomic.Int64

	mu    sync.Mutex
	moves []move
	hires []hired
}

// move is an acknowledged change of a task.
type move struct {
	poster, worker int
	task, status   string
}

// hired is a hire whose end was acknowledged.
type hired struct {
	agent int
	paid  bool
}

// trade posts, accepts and completes tasks until the end. Some are left as they
// are on the way.
func (k *killed) trade(i int) {
	for n := 0; !k.over.Load(); n++ {
		m := move{poster: i, worker: (i + n) % len(k.workers)}
		if m.task = k.verb(k.posters[i], "postTask", fmt.Sprintf(`title: "Task %d", description: "Work.", budget: %d, requiredCapabilities: ["work"]`, n, budget)); m.task == "" {
			return
		}
		k.keep(m, "OPEN")
		if n%4 == 0 {
			continue
		}
		k.verb(k.workers[m.worker], "acceptTask", fmt.Sprintf("taskId: %q", m.task))
		k.keep(m, "ASSIGNED")
		if n%4 == 1 {
			continue
		}
		k.verb(k.workers[m.worker], "completeTask", fmt.Sprintf(`taskId: %q, result: "Done."`, m.task))
		k.keep(m, "COMPLETED")
	}
}

func (k *killed) keep(m move, status string) {
	m.status = status
	k.mu.Lock()
	defer k.mu.Unlock()
	k.moves = append(k.moves, m)
}

// hire hires an agent directly until the end.
func (k *killed) hire(i int) {
	for !k.over.Load() {
		text := k.ask(k.posters[i].Key, fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "Do it.", budget: %d}) { task { id } } }`, k.workers[i].ID, budget))
		paid := !strings.Contains(text, `"errors"`)
		if !paid && !strings.Contains(text, `"EXECUTION_FAILED"`) {
			k.Errorf("a hire ended with %s", text)
			return
		}
		k.mu.Lock()
		k.hires = append(k.hires, hired{agent: i, paid: paid})
		k.mu.Unlock()
	}
}

// verb runs a mutation that answers with a task, and returns the task's id.
func (k *killed) verb(agent program.Agent, name, input string) string {
	text := k.ask(agent.Key, fmt.Sprintf("mutation { verb: %s(input: {%s}) { task { id } } }", name, input))
	var answer struct {
		Data struct {
			Verb struct{ Task struct{ ID string } }
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Data.Verb.Task.ID == "" {
		k.Errorf("%s(%s): %s", name, input, text)
	}
	return answer.Data.Verb.Task.ID
}

// ask sends an operation until it is answered.
func (k *killed) ask(key, document string) string {
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		k.Error(err)
	}
	once := fmt.Sprintf("request %d", k.requests.Add(1))
	for {
		k.awaitServer()
		status, text := k.server.Do(http.MethodPost, "/graphql", key, string(body), "Idempotency-Key", once)
		if status == http.StatusOK && !strings.Contains(text, "is still running") {
			k.answers.Add(1)
			return text
		}
		if status >= http.StatusInternalServerError {
			k.Errorf("status %d: %s", status, text)
		}
	}
}

// awaitServer waits while there is none. It may be killed right afterwards.
func (k *killed) awaitServer() {
	k.down.RLock()
	defer k.down.RUnlock()
}

// awaitAnswers waits until so many more requests were answered.
func (k *killed) awaitAnswers(more int64) {
	enough := k.answers.Load() + more
	eventually(k.T, "requests are answered", func() bool { return k.answers.Load() >= enough })
}

// tasks returns the last acknowledged move of each task.
func (k *killed) tasks() map[string]move {
	last := map[string]move{}
	for _, m := range k.moves {
		last[m.task] = m
	}
	return last
}

// checkTasks wants every task as it was last acknowledged, and no other.
func (k *killed) checkTasks() {
	want := map[string]string{}
	for id, m := range k.tasks() {
		want[id] = m.status
	}
	got, after := map[string]string{}, ""
	for {
		var data struct {
			Tasks struct {
				Nodes    []struct{ ID, Status string }
				PageInfo struct {
					HasNextPage bool
					EndCursor   string
				}
			}
		}
		variables := map[string]any{}
		if after != "" {
			variables["after"] = after
		}
		err := k.server.Query("", `query($after: String) { tasks(first: 100, after: $after, filter: {status: [OPEN, ASSIGNED, COMPLETED, CANCELLED, EXPIRED, FAILED]}) {
			nodes { id status } pageInfo { hasNextPage endCursor }
		} }`, variables, &data)
		if err != nil {
			k.Fatal(err)
		}
		for _, task := range data.Tasks.Nodes {
			got[task.ID] = task.Status
		}
		if after = data.Tasks.PageInfo.EndCursor; !data.Tasks.PageInfo.HasNextPage {
			break
		}
	}
	if !maps.Equal(got, want) {
		k.Errorf("there are %d tasks, %d were acknowledged, or they stand elsewhere", len(got), len(want))
	}
}

// checkBalances wants every agent to have what the acknowledged work left it.
func (k *killed) checkBalances() {
	want := map[string]int{}
	for i := range k.posters {
		want[k.posters[i].Key], want[k.workers[i].Key] = startCredits, startCredits
	}
	for _, m := range k.tasks() {
		want[k.posters[m.poster].Key] -= budget
		if m.status == "COMPLETED" {
			want[k.workers[m.worker].Key] += wage
		}
	}
	for _, h := range k.hires {
		if h.paid {
			want[k.posters[h.agent].Key] -= budget
			want[k.workers[h.agent].Key] += wage
		}
	}
	for key, credits := range want {
		var data struct {
			Viewer struct{ Wallet struct{ Balance int } }
		}
		if err := k.server.Query(key, "{ viewer { wallet { balance } } }", nil, &data); err != nil {
			k.Fatal(err)
		}
		if got := data.Viewer.Wallet.Balance; got != credits {
			k.Errorf("an agent has %d credits, want %d", got, credits)
		}
	}
}

// told takes webhooks and counts how often each task was told of; as an endpoint
// it does what it is hired for.
type told struct {
	mu    sync.Mutex
	tasks map[string]int
	extra map[string]int // by delivery
}

// ServeHTTP answers one call.
func (h *told) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call struct{ Task struct{ ID string } }
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/execute" {
		_, _ = w.Write([]byte("Done."))
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.extra == nil {
		h.extra = map[string]int{}
	}
	if h.extra[r.Header.Get("X-AgentMarket-Delivery")]++; h.extra[r.Header.Get("X-AgentMarket-Delivery")] == 1 {
		h.tasks[call.Task.ID]++
	}
}

// await waits until each task was told to so many agents.
func (h *told) await(t *testing.T, tasks []string, agents int) {
	t.Helper()
	eventually(t, "every webhook has come", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return !slices.ContainsFunc(tasks, func(id string) bool { return h.tasks[id] < agents })
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, n := range h.tasks {
		if n != agents {
			t.Errorf("task %s was told to %d agents", id, n)
		}
	}
}

// twice is how many deliveries came again.
func (h *told) twice() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, times := range h.extra {
		n += times - 1
	}
	return n
}

// eventually waits until something is so, looking again and again.
func eventually(t *testing.T, what string, isSo func() bool) {
	t.Helper()
	looks := time.NewTicker(2 * time.Millisecond)
	defer looks.Stop()
	tooLong := time.After(patience)
	for !isSo() {
		select {
		case <-looks.C:
		case <-tooLong:
			t.Fatalf("waited too long until %s", what)
		}
	}
}
