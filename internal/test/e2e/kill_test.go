package e2e_test

import (
	"cmp"
	"context"
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

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

const (
	// startCredits is enough for the longest of these tests.
	startCredits      = 1_000_000_000
	budget            = 25 // of each task: 22 for the worker, 3 for the platform
	wage              = 22
	maxDuplicateShare = 0.05 // maximum share of webhooks that arrive more than once

	retryDelay = 250 * time.Millisecond // before the next retry of a request that is still running
)

// TestKill kills servers repeatedly while agents register and trade over GraphQL and REST.
// Clients retry with the same Idempotency-Key. In the end every acknowledged change exists
// once, the ledger has no violations, every webhook has received every task, few of them
// more than once, and subscribers have received every task once and in order.
func TestKill(t *testing.T) {
	t.Parallel()
	markets, kills := trusttest.Scale(2, 4, 4), trusttest.Scale(3, 50, 1250)
	if services.OnPostgres() {
		markets, kills = 2, trusttest.Scale(1, 10, 500) // killing the server does not test the engine's durability
	}
	var answers, webhooks, duplicates atomic.Int64
	t.Cleanup(func() {
		share := float64(duplicates.Load()) / float64(webhooks.Load())
		if trusttest.Scale(0, 1, 1) > 0 && share >= maxDuplicateShare { // a few kills are too few for a share
			t.Errorf("%.1f %% of %d webhooks arrived more than once, want less than %.0f %%", 100*share, webhooks.Load(), 100*maxDuplicateShare)
		}
		trusttest.Report(t, "kill", "%d kills, %d responses, 0 lost; %d webhooks, 0 lost, %.1f %% duplicates", markets*kills, answers.Load(), webhooks.Load(), 100*share)
	})
	for i := range markets {
		t.Run(fmt.Sprint("market ", i), func(t *testing.T) {
			t.Parallel()
			k, recorder := killAndRestart(t, kills)
			answers.Add(k.responses.Load())
			webhooks.Add(int64(len(recorder.deliveryCounts)))
			duplicates.Add(int64(recorder.duplicates()))
		})
	}
}

// killAndRestart runs agents while it kills their server a number of times.
func killAndRestart(t *testing.T, kills int) (*killTest, *webhookRecorder) {
	t.Helper()
	recorder := &webhookRecorder{taskCounts: map[string]int{}, deliveryCounts: map[string]int{}}
	url, env := testserver.ServeTLS(t, recorder)
	k := &killTest{T: t, server: testserver.Start(t, append(env, append(storeSettings(t), quickRetries, "AGENTMARKET_OPERATOR_KEY="+operatorKey,
		fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))...)...)}
	for range 3 {
		k.posters = append(k.posters, k.server.Register("Poster", nil))
		k.workers = append(k.workers, k.server.Register("Worker", map[string]any{
			"capabilities": []string{"work"}, "webhookUrl": url + "/webhook", "endpointUrl": url + "/execute",
		}))
	}
	live := &eventSubscriber{server: k.server, cursor: "0"}
	stopSubscriber := k.startSubscriber(live)
	var trading sync.WaitGroup
	for i := range k.posters {
		trading.Go(func() { k.trade(i) })
		trading.Go(func() { k.hire(i) })
	}
	minResponses, extraResponses := int64(15), 100 // responses between two kills
	if services.OnPostgres() {
		minResponses, extraResponses = 60, 100 // fewer duplicates per response, since there are fewer kills
	}
	for round := range kills {
		k.waitForResponses(minResponses + int64(rand.IntN(extraResponses)))
		k.serverDown.Lock()
		k.server.Kill()
		k.server.Restart()
		k.serverDown.Unlock()
		if round%25 == 2 {
			k.server.Verify() // while the server runs
		}
	}
	k.stopped.Store(true)
	trading.Wait()

	k.checkEvents(live)
	stopSubscriber()
	k.checkAgents()
	k.checkAudit()
	k.checkTasks()
	k.checkBalances()
	recorder.waitForTasks(t, slices.Collect(maps.Keys(k.lastMoves())), len(k.workers))
	t.Logf("%d responses over %d kills, %d tasks, %d hires, %d new agents; %d duplicate webhooks; %d connections",
		k.responses.Load(), kills, len(k.lastMoves()), len(k.hires), len(k.newcomers), recorder.duplicates(), live.sockets)
	if code := k.server.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	k.server.Verify()
	return k, recorder
}

// killTest is a market whose server is killed repeatedly.
type killTest struct {
	*testing.T
	server           *testserver.Server
	posters, workers []testserver.Agent
	serverDown       sync.RWMutex // locked while the server is down
	stopped          atomic.Bool
	responses        atomic.Int64
	requests         atomic.Int64

	mu        sync.Mutex
	moves     []move
	hires     []hireOutcome
	newcomers []testserver.Agent
}

// move is an acknowledged transition of a task.
type move struct {
	poster, worker testserver.Agent
	task, status   string
}

// hireOutcome is the acknowledged outcome of a hire.
type hireOutcome struct {
	poster, worker testserver.Agent
	paid           bool
}

// trade posts, accepts and completes tasks until the test stops. Some tasks are left
// unfinished, and some are completed by newly registered agents.
func (k *killTest) trade(i int) {
	for n := 0; !k.stopped.Load(); n++ {
		m := k.post(k.posters[i])
		if n%4 == 0 {
			continue
		}
		m.worker = k.workers[(i+n)%len(k.workers)]
		if n%8 == 6 {
			m.worker = k.register()
		}
		k.do(m.worker, acceptCall(m.task))
		k.record(m, "ASSIGNED")
		if n%4 == 1 {
			continue
		}
		k.do(m.worker, completeCall(m.task))
		k.record(m, "COMPLETED")
	}
}

func (k *killTest) post(poster testserver.Agent) move {
	m := move{poster: poster, task: k.do(poster, postCall()).taskID()}
	k.record(m, "OPEN")
	return m
}

func (k *killTest) record(m move, status string) {
	m.status = status
	k.mu.Lock()
	defer k.mu.Unlock()
	k.moves = append(k.moves, m)
}

func (k *killTest) register() testserver.Agent {
	agent := k.do(testserver.Agent{}, registerCall()).agent()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.newcomers = append(k.newcomers, agent)
	return agent
}

// hire hires an agent repeatedly until the test stops.
func (k *killTest) hire(i int) {
	for !k.stopped.Load() {
		h := hireOutcome{poster: k.posters[i], worker: k.workers[i]}
		h.paid = k.do(h.poster, executeCall(h.worker.ID)).errorCode == ""
		k.mu.Lock()
		k.hires = append(k.hires, h)
		k.mu.Unlock()
	}
}

// do sends a call over REST or GraphQL until there is a response. Only a hire may fail:
// with EXECUTION_FAILED, if the server was killed while it ran.
func (k *killTest) do(agent testserver.Agent, s apiCall) apiResponse {
	n := k.requests.Add(1)
	once := fmt.Sprintf("request number %d", n)
	path, body := s.path, s.body
	if n%2 == 0 {
		path, body = "/graphql", fmt.Sprintf(`{"query":%q}`, "mutation { verb: "+s.mutation+" }")
	}
	for k.Context().Err() == nil {
		k.waitForServer()
		status, text := k.server.Do(http.MethodPost, path, agent.Key, body, "Idempotency-Key", once)
		if status == 0 {
			continue
		}
		if strings.Contains(text, "is still running") {
			<-time.After(retryDelay)
			continue
		}
		k.responses.Add(1)
		var a apiResponse
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			k.Errorf("%s %s: %d %s", path, body, status, text)
		}
		if a.errorCode = a.Code; len(a.Errors) > 0 {
			a.errorCode = a.Errors[0].Extensions.Code
		}
		if a.errorCode != "" && (a.errorCode != "EXECUTION_FAILED" || s.path != "/api/execute") {
			k.Errorf("%s %s: %d %s", path, body, status, text)
		}
		return a
	}
	return apiResponse{}
}

// waitForServer waits while the server is down. It may be killed right after that.
func (k *killTest) waitForServer() {
	k.serverDown.RLock()
	defer k.serverDown.RUnlock()
}

// waitForResponses waits for a number of further responses.
func (k *killTest) waitForResponses(n int64) {
	enough := k.responses.Load() + n
	testutil.Eventually(k.T, "responses", func() bool { return k.responses.Load() >= enough })
}

// startSubscriber runs a subscriber until the returned function is called.
func (k *killTest) startSubscriber(f *eventSubscriber) (stopSubscriber func()) {
	ctx, cancel := context.WithCancel(k.Context())
	var listening sync.WaitGroup
	listening.Go(func() { f.run(ctx, k.waitForServer) })
	return func() {
		cancel()
		listening.Wait()
	}
}

// apiCall is a change as a GraphQL mutation and as a REST request.
type apiCall struct{ mutation, path, body string }

func registerCall() apiCall {
	return apiCall{`registerAgent(input: {name: "Newcomer"}) { agent { id } apiKey }`, "/api/agents/register", `{"name":"Newcomer"}`}
}

func postCall() apiCall {
	return apiCall{
		fmt.Sprintf(`postTask(input: {title: "Task", description: "Work.", budget: %d, requiredCapabilities: ["work"]}) { task { id } }`, budget),
		"/api/tasks", fmt.Sprintf(`{"title":"Task","description":"Work.","budget":%d,"required_capabilities":["work"]}`, budget),
	}
}

func acceptCall(task string) apiCall {
	return apiCall{fmt.Sprintf(`acceptTask(input: {taskId: %q}) { task { id } }`, task), "/api/tasks/" + task + "/accept", ""}
}

func completeCall(task string) apiCall {
	return apiCall{
		fmt.Sprintf(`completeTask(input: {taskId: %q, result: "Done."}) { task { id } }`, task),
		"/api/tasks/" + task + "/complete", `{"result":"Done."}`,
	}
}

func executeCall(agent string) apiCall {
	return apiCall{
		fmt.Sprintf(`execute(input: {agentId: %q, taskDescription: "Do it.", budget: %d}) { task { id } }`, agent, budget),
		"/api/execute", fmt.Sprintf(`{"agent_id":%q,"task_description":"Do it.","budget":%d}`, agent, budget),
	}
}

// apiResponse is a response of either API.
type apiResponse struct {
	Code string
	Data struct {
		ID     string
		APIKey string `json:"api_key"`
		Verb   struct {
			Task, Agent struct{ ID string }
			APIKey      string `json:"apiKey"`
		}
	}
	Errors []struct {
		Extensions struct{ Code string }
	}
	errorCode string // "" on success
}

func (a apiResponse) taskID() string { return cmp.Or(a.Data.ID, a.Data.Verb.Task.ID) }

func (a apiResponse) agent() testserver.Agent {
	return testserver.Agent{ID: cmp.Or(a.Data.ID, a.Data.Verb.Agent.ID), Key: cmp.Or(a.Data.APIKey, a.Data.Verb.APIKey)}
}
