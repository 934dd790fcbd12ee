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
	// startCredits last one agent for the longest of these tests.
	startCredits      = 1_000_000_000
	budget            = 25 // of each task: 22 to the worker, 3 to the platform
	wage              = 22
	maxDuplicateShare = 0.05 // of the webhooks may come more than once

	retryDelay = 250 * time.Millisecond // who is told that a request is still running asks again
)

// TestKill kills servers again and again while agents register and trade, over
// GraphQL and REST. Whoever got no answer asks again with the same
// Idempotency-Key, as any careful client would. In the end everything that was
// acknowledged is there, once; the books hold; every posted task has reached
// every webhook, few of them more than once, and once and in order who listened
// by cursor.
func TestKill(t *testing.T) {
	t.Parallel()
	markets, kills := trusttest.Scale(2, 4, 4), trusttest.Scale(3, 50, 1250)
	if services.OnPostgres() {
		markets, kills = 2, trusttest.Scale(1, 10, 500) // the engine keeps what it was given, whoever is killed
	}
	var answers, webhooks, again atomic.Int64
	t.Cleanup(func() {
		often := float64(again.Load()) / float64(webhooks.Load())
		if trusttest.Scale(0, 1, 1) > 0 && often >= maxDuplicateShare { // a few kills say nothing of a share
			t.Errorf("%.1f %% of %d webhooks came more than once, want less than %.0f %%", 100*often, webhooks.Load(), 100*maxDuplicateShare)
		}
		trusttest.Report(t, "kill", "%d kills, %d answers, 0 lost; %d webhooks, 0 lost, %.1f %% came again", markets*kills, answers.Load(), webhooks.Load(), 100*often)
	})
	for i := range markets {
		t.Run(fmt.Sprint("market ", i), func(t *testing.T) {
			t.Parallel()
			k, heard := killAndRestart(t, kills)
			answers.Add(k.responses.Load())
			webhooks.Add(int64(len(heard.deliveryCounts)))
			again.Add(int64(heard.duplicates()))
		})
	}
}

// killAndRestart has agents trade while their server is killed so many times.
func killAndRestart(t *testing.T, kills int) (*killTest, *webhookRecorder) {
	t.Helper()
	heard := &webhookRecorder{taskCounts: map[string]int{}, deliveryCounts: map[string]int{}}
	url, env := testserver.ServeTLS(t, heard)
	k := &killTest{T: t, server: testserver.Start(t, append(env, append(storeSettings(t), quickRetries, "AGENTMARKET_OPERATOR_KEY="+operatorKey,
		fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))...)...)}
	for range 3 {
		k.posters = append(k.posters, k.server.Register("Poster", nil))
		k.workers = append(k.workers, k.server.Register("Worker", map[string]any{
			"capabilities": []string{"work"}, "webhookUrl": url + "/webhook", "endpointUrl": url + "/execute",
		}))
	}
	live := &eventSubscriber{server: k.server, cursor: "0"}
	hangUp := k.startSubscriber(live)
	var trading sync.WaitGroup
	for i := range k.posters {
		trading.Go(func() { k.trade(i) })
		trading.Go(func() { k.hire(i) })
	}
	least, more := int64(15), 100 // answers between two kills
	if services.OnPostgres() {
		least, more = 60, 100 // of few kills the share of webhooks that come again says less
	}
	for round := range kills {
		k.waitForResponses(least + int64(rand.IntN(more)))
		k.serverDown.Lock()
		k.server.Kill()
		k.server.Restart()
		k.serverDown.Unlock()
		if round%25 == 2 {
			k.server.Verify() // while it serves
		}
	}
	k.stopped.Store(true)
	trading.Wait()

	k.checkEvents(live)
	hangUp()
	k.checkAgents()
	k.checkAudit()
	k.checkTasks()
	k.checkBalances()
	heard.waitForTasks(t, slices.Collect(maps.Keys(k.lastMoves())), len(k.workers))
	t.Logf("%d answers over %d kills, %d tasks, %d hires, %d newcomers; webhooks came %d times more than once; %d sockets",
		k.responses.Load(), kills, len(k.lastMoves()), len(k.hires), len(k.newcomers), heard.duplicates(), live.sockets)
	if code := k.server.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	k.server.Verify()
	return k, heard
}

// killTest is a market whose server is killed again and again.
type killTest struct {
	*testing.T
	server           *testserver.Server
	posters, workers []testserver.Agent
	serverDown       sync.RWMutex // locked while there is no server
	stopped          atomic.Bool
	responses        atomic.Int64
	requests         atomic.Int64

	mu        sync.Mutex
	moves     []move
	hires     []hireOutcome
	newcomers []testserver.Agent
}

// move is an acknowledged change of a task.
type move struct {
	poster, worker testserver.Agent
	task, status   string
}

// hireOutcome is a hire whose end was acknowledged.
type hireOutcome struct {
	poster, worker testserver.Agent
	paid           bool
}

// trade posts, accepts and completes tasks until the end. Some are left as they
// are on the way, and some are done by agents that have just registered.
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

// hire hires an agent directly until the end.
func (k *killTest) hire(i int) {
	for !k.stopped.Load() {
		h := hireOutcome{poster: k.posters[i], worker: k.workers[i]}
		h.paid = k.do(h.poster, executeCall(h.worker.ID)).errorCode == ""
		k.mu.Lock()
		k.hires = append(k.hires, h)
		k.mu.Unlock()
	}
}

// do takes a step over one door or the other, again and again until it is
// answered. Only a hire may be refused: with EXECUTION_FAILED, when the server
// was killed meanwhile.
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

// waitForServer waits while there is none. It may be killed right afterwards.
func (k *killTest) waitForServer() {
	k.serverDown.RLock()
	defer k.serverDown.RUnlock()
}

// waitForResponses waits until so many more requests were answered.
func (k *killTest) waitForResponses(more int64) {
	enough := k.responses.Load() + more
	testutil.Eventually(k.T, "requests are answered", func() bool { return k.responses.Load() >= enough })
}

// startSubscriber has a follower listen until the function returned is called.
func (k *killTest) startSubscriber(f *eventSubscriber) (hangUp func()) {
	ctx, cancel := context.WithCancel(k.Context())
	var listening sync.WaitGroup
	listening.Go(func() { f.run(ctx, k.waitForServer) })
	return func() {
		cancel()
		listening.Wait()
	}
}

// apiCall is a change as each door takes it.
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

// apiResponse is what a step is answered with at either door.
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
	errorCode string // with which code
}

func (a apiResponse) taskID() string { return cmp.Or(a.Data.ID, a.Data.Verb.Task.ID) }

func (a apiResponse) agent() testserver.Agent {
	return testserver.Agent{ID: cmp.Or(a.Data.ID, a.Data.Verb.Agent.ID), Key: cmp.Or(a.Data.APIKey, a.Data.Verb.APIKey)}
}
