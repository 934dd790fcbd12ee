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

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

const (
	initialCredits = 200 // few enough that some posts fail with INSUFFICIENT_CREDITS
	clientsPerKey  = 2   // clients that share a key and so change the same wallet
)

// TestLinearizable: eight clients with four keys post, accept, complete, cancel and read
// over REST and GraphQL while the server is killed. porcupine finds a linearization of all
// responses. If one balance is off by one credit it finds none.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	const clients = 8
	h := &history{T: t, operationsPerClient: trusttest.Scale(100, 5000/clients, 50*5000/clients), start: time.Now()}
	kills := trusttest.Scale(2, 20, 1000)
	if services.OnPostgres() {
		kills = trusttest.Scale(1, 5, 250)
	}
	h.server = testserver.Start(t, append(storeSettings(t), fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", initialCredits))...)
	for range clients / clientsPerKey {
		h.agents = append(h.agents, h.server.Register("Agent", nil))
	}
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() { h.runClient(i) })
	}
	for round := range kills {
		enough := int64((round + 1) * clients * h.operationsPerClient / (kills + 1))
		testutil.Eventually(t, "responses", func() bool { return h.responses.Load() >= enough || t.Failed() })
		h.serverDown.Lock()
		h.server.Kill()
		h.server.Restart()
		h.serverDown.Unlock()
	}
	running.Wait()
	if t.Failed() {
		return
	}
	h.server.Verify()

	model := h.model()
	if got := porcupine.CheckOperationsTimeout(model, h.operations, 10*testutil.Timeout); got != porcupine.Ok {
		t.Fatalf("history of %d operations: %s, want it linearizable", len(h.operations), got)
	}
	h.corruptBalance()
	if got := porcupine.CheckOperationsTimeout(model, h.operations, 10*testutil.Timeout); got != porcupine.Illegal {
		t.Fatalf("history with a wrong balance: %s, want it not linearizable", got)
	}
	trusttest.Report(t, "linearizable", "%d operations of %d clients over %d kills are linearizable; with one balance off by one they are not", len(h.operations), clients, kills)
}

// history records the requests and responses of clients.
type history struct {
	*testing.T
	server              *testserver.Server
	agents              []testserver.Agent
	operationsPerClient int
	start               time.Time
	serverDown          sync.RWMutex // locked while the server is down
	responses           atomic.Int64

	mu         sync.Mutex
	operations []porcupine.Operation
	tasks      []taskOffer
}

type taskOffer struct {
	id     string
	poster int // number of the agent
	budget int
}

// operationInput and operationOutput are an operation and its result.
type (
	operationInput struct {
		verb   string
		agent  int
		task   int // number of the task; of a post, the new one
		budget int
	}
	operationOutput struct {
		errorCode string
		balance   int // -1 if the response has none
		status    string
	}
)

// runClient runs the operations of a client.
func (h *history) runClient(client int) {
	random := rand.New(rand.NewPCG(uint64(client), 1))
	for n := range h.operationsPerClient {
		if h.Failed() {
			return
		}
		a := operationInput{agent: client % len(h.agents), verb: []string{"post", "accept", "complete", "cancel", "wallet", "task", "accept", "complete"}[random.IntN(8)]}
		h.mu.Lock()
		known := len(h.tasks)
		h.mu.Unlock()
		if known == 0 && a.verb != "wallet" {
			a.verb = "post"
		}
		if a.verb == "post" {
			a.budget = 10 * (1 + random.IntN(5))
		} else if known > 0 {
			a.task = max(0, known-1-random.IntN(12)) // so that clients compete for recent tasks
		}
		h.execute(client, a, fmt.Sprintf("client %d asks %d", client, n), random.IntN(2) == 0)
	}
}

// execute sends an operation until there is a response, and records both.
func (h *history) execute(client int, a operationInput, once string, rest bool) {
	s := h.callFor(a)
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
	call := time.Since(h.start)
	for !h.Failed() {
		h.serverDown.RLock()
		h.serverDown.RUnlock() //nolint:staticcheck // waits while the server is down
		status, text := h.server.Do(method, path, h.agents[a.agent].Key, body, "Idempotency-Key", once)
		if status == 0 || strings.Contains(text, "is still running") {
			continue
		}
		h.record(client, a, call, status, text, rest)
		return
	}
}

// callFor returns the API call of an operation.
func (h *history) callFor(a operationInput) apiCall {
	if a.verb == "post" {
		s := postCall()
		with := strings.NewReplacer("25", strconv.Itoa(a.budget), "{ task { id } }", "{ task { id } wallet { balance } }")
		return apiCall{with.Replace(s.mutation), s.path, with.Replace(s.body)}
	}
	if a.verb == "wallet" {
		return apiCall{"viewer { wallet { balance } }", "/api/wallet", ""}
	}
	h.mu.Lock()
	id := h.tasks[a.task].id
	h.mu.Unlock()
	switch a.verb {
	case "accept":
		return acceptCall(id)
	case "complete":
		s := completeCall(id)
		s.mutation = strings.Replace(s.mutation, "{ task { id } }", "{ task { id } wallet { balance } }", 1)
		return s
	case "cancel":
		return apiCall{fmt.Sprintf("cancelTask(input: {taskId: %q}) { task { id } wallet { balance } }", id), "/api/tasks/" + id + "/cancel", ""}
	default:
		return apiCall{fmt.Sprintf("task(id: %q) { id status }", id), "/api/tasks/" + id, ""}
	}
}

// record records an operation and its result.
func (h *history) record(client int, a operationInput, call time.Duration, status int, text string, rest bool) {
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
	end := time.Since(h.start)
	b := operationOutput{errorCode: got.Code, balance: got.Balance, status: strings.ToLower(got.Data.Status + got.Data.Verb.Status)}
	if !rest {
		b.balance = got.Data.Verb.Wallet.Balance
		if len(got.Errors) > 0 {
			b.errorCode = got.Errors[0].Extensions.Code
		}
	}
	if err != nil || status >= http.StatusInternalServerError {
		h.Errorf("%v: %d %s", a, status, text)
		return
	}
	if b.errorCode != "" || a.verb == "accept" || a.verb == "task" { // the balance in these REST responses is read separately
		b.balance = -1
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.verb == "post" && b.errorCode == "" {
		a.task = len(h.tasks)
		h.tasks = append(h.tasks, taskOffer{id: got.Data.ID + got.Data.Verb.Task.ID, poster: a.agent, budget: a.budget})
	}
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: a, Call: int64(call), Output: b, Return: int64(end)})
	h.responses.Add(1)
}

// corruptBalance changes a balance by one credit, in a response that does not overlap with
// another operation of the agent, so that no other order can explain it.
func (h *history) corruptBalance() {
	h.Helper()
	for i := len(h.operations) / 2; i < len(h.operations); i++ {
		o := h.operations[i]
		agent := mustCast[operationInput](o.Input).agent
		b := mustCast[operationOutput](o.Output)
		if b.balance < 0 || slices.ContainsFunc(h.operations, func(other porcupine.Operation) bool {
			return other.ClientId != o.ClientId && mustCast[operationInput](other.Input).agent == agent && other.Call <= o.Return && other.Return >= o.Call
		}) {
			continue
		}
		b.balance++
		h.operations[i].Output = b
		return
	}
	h.Fatal("every balance met another change")
}
