package e2e_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"agentmarket.space/server/internal/test/e2e/program"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/trust/claim"
)

const (
	purse      = 200 // of each agent: some posts are refused for want of credits
	keyHolders = 2   // clients with the same key, whose changes of one wallet meet
)

// TestLinearizable: eight clients with four keys post, accept, complete, cancel
// and read through both doors while the server is killed. All that they were
// answered can be put in one order, in which nothing comes before what had been
// answered when it was asked, and in which every answer is the model's. With one
// balance off by one credit there is no such order.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	const clients = 8
	h := &history{T: t, each: claim.Size(100, 5000/clients, 50*5000/clients), began: time.Now()}
	kills := claim.Size(2, 20, 1000)
	if services.OnPostgres() {
		kills = claim.Size(1, 5, 250)
	}
	h.server = program.Start(t, append(store(t), fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", purse))...)
	for range clients / keyHolders {
		h.agents = append(h.agents, h.server.Register("Agent", nil))
	}
	var working sync.WaitGroup
	for i := range clients {
		working.Go(func() { h.work(i) })
	}
	for round := range kills {
		enough := int64((round + 1) * clients * h.each / (kills + 1))
		eventually(t, "operations to be answered", func() bool { return h.answered.Load() >= enough || t.Failed() })
		h.down.Lock()
		h.server.Kill()
		h.server.Restart()
		h.down.Unlock()
	}
	working.Wait()
	if t.Failed() {
		return
	}
	h.server.Verify()

	model := h.model()
	if got := porcupine.CheckOperationsTimeout(model, h.operations, 10*patience); got != porcupine.Ok {
		t.Fatalf("is the history of %d operations linearizable? %s", len(h.operations), got)
	}
	h.falsify()
	if got := porcupine.CheckOperationsTimeout(model, h.operations, 10*patience); got != porcupine.Illegal {
		t.Fatalf("is the history linearizable with a false balance? %s", got)
	}
	claim.Shown(t, "linearizable", "%d operations of %d clients over %d kills are in one order; with one balance off by one there is none", len(h.operations), clients, kills)
}

// history is what clients asked and were answered.
type history struct {
	*testing.T
	server   *program.Server
	agents   []program.Agent
	each     int // operations of a client
	began    time.Time
	down     sync.RWMutex // locked while there is no server
	answered atomic.Int64

	mu         sync.Mutex
	operations []porcupine.Operation
	tasks      []offered
}

// offered is a posted task.
type offered struct {
	id     string
	poster int // which agent
	budget int
}

// asked is an operation, and told what it was answered.
type (
	asked struct {
		verb   string
		agent  int
		task   int // which; of a post, the one it becomes
		budget int
	}
	said struct {
		refused string
		balance int // -1 where the answer has none
		status  string
	}
)

// work asks for one thing after another.
func (h *history) work(client int) {
	random := rand.New(rand.NewPCG(uint64(client), 1))
	for n := range h.each {
		if h.Failed() {
			return
		}
		a := asked{agent: client % len(h.agents), verb: []string{"post", "accept", "complete", "cancel", "wallet", "task", "accept", "complete"}[random.IntN(8)]}
		h.mu.Lock()
		known := len(h.tasks)
		h.mu.Unlock()
		if known == 0 && a.verb != "wallet" {
			a.verb = "post"
		}
		if a.verb == "post" {
			a.budget = 10 * (1 + random.IntN(5))
		} else if known > 0 {
			a.task = max(0, known-1-random.IntN(12)) // the last are wanted by many
		}
		h.ask(client, a, fmt.Sprintf("client %d asks %d", client, n), random.IntN(2) == 0)
	}
}

// ask asks until there is an answer, and writes both down.
func (h *history) ask(client int, a asked, once string, rest bool) {
	s := h.step(a)
	method, path, body := http.MethodPost, s.path, s.body
	if a.verb == "wallet" || a.verb == "task" {
		method = http.MethodGet
	}
	if !rest {
		kind := "mutation { verb: "
		if method == http.MethodGet {
			kind = "{ verb: "
		}
		method, path, body = http.MethodPost, "/graphql", fmt.Sprintf(`{"query":%q}`, kind+s.mutation+" }")
	}
	call := time.Since(h.began)
	for !h.Failed() {
		h.down.RLock()
		h.down.RUnlock() //nolint:staticcheck // it waits while there is no server
		status, text := h.server.Do(method, path, h.agents[a.agent].Key, body, "Idempotency-Key", once)
		if status == 0 || strings.Contains(text, "is still running") {
			continue
		}
		h.note(client, a, call, status, text, rest)
		return
	}
}

// step is the operation as each door takes it.
func (h *history) step(a asked) step {
	if a.verb == "post" {
		s := posting()
		with := strings.NewReplacer("25", strconv.Itoa(a.budget), "{ task { id } }", "{ task { id } wallet { balance } }")
		return step{with.Replace(s.mutation), s.path, with.Replace(s.body)}
	}
	if a.verb == "wallet" {
		return step{"viewer { wallet { balance } }", "/api/wallet", ""}
	}
	h.mu.Lock()
	id := h.tasks[a.task].id
	h.mu.Unlock()
	switch a.verb {
	case "accept":
		return acceptance(id)
	case "complete":
		s := completion(id)
		s.mutation = strings.Replace(s.mutation, "{ task { id } }", "{ task { id } wallet { balance } }", 1)
		return s
	case "cancel":
		return step{fmt.Sprintf("cancelTask(input: {taskId: %q}) { task { id } wallet { balance } }", id), "/api/tasks/" + id + "/cancel", ""}
	default:
		return step{fmt.Sprintf("task(id: %q) { id status }", id), "/api/tasks/" + id, ""}
	}
}

// note writes an operation and its answer down.
func (h *history) note(client int, a asked, call time.Duration, status int, text string, rest bool) {
	var got struct {
		Code    string
		Balance int
		Data    struct {
			ID, Status string
			Verb       struct {
				ID, Status string
				Task       struct{ ID string }
				Wallet     struct{ Balance int }
			}
		}
		Errors []struct{ Extensions struct{ Code string } }
	}
	err := json.Unmarshal([]byte(text), &got)
	end := time.Since(h.began)
	b := said{refused: got.Code, balance: got.Balance, status: strings.ToLower(got.Data.Status + got.Data.Verb.Status)}
	if !rest {
		b.balance = got.Data.Verb.Wallet.Balance
		if len(got.Errors) > 0 {
			b.refused = got.Errors[0].Extensions.Code
		}
	}
	if err != nil || status >= http.StatusInternalServerError {
		h.Errorf("%v: %d %s", a, status, text)
		return
	}
	if b.refused != "" || a.verb == "accept" || a.verb == "task" { // what REST adds to these is read apart
		b.balance = -1
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.verb == "post" && b.refused == "" {
		a.task = len(h.tasks)
		h.tasks = append(h.tasks, offered{id: got.Data.ID + got.Data.Verb.Task.ID, poster: a.agent, budget: a.budget})
	}
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: a, Call: int64(call), Output: b, Return: int64(end)})
	h.answered.Add(1)
}

// falsify changes a balance by one credit, in an answer that met no other of its
// agent, so that no other order can explain it.
func (h *history) falsify() {
	h.Helper()
	for i := len(h.operations) / 2; i < len(h.operations); i++ {
		o := h.operations[i]
		agent := given[asked](o.Input).agent
		b := given[said](o.Output)
		if b.balance < 0 || slices.ContainsFunc(h.operations, func(other porcupine.Operation) bool {
			return other.ClientId != o.ClientId && given[asked](other.Input).agent == agent && other.Call <= o.Return && other.Return >= o.Call
		}) {
			continue
		}
		b.balance++
		h.operations[i].Output = b
		return
	}
	h.Fatal("every balance met another change")
}
