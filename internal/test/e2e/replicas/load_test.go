package replicas_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

const (
	startCredits = 100_000
	budget       = 2 // of each task
	wage         = 1 // the worker's share
)

// TestLoad: agents work through three replicas at once. AGENTMARKET_TEST_AGENTS and
// AGENTMARKET_TEST_FOR set their number and the duration.
func TestLoad(t *testing.T) {
	t.Parallel()
	store, bus := services.NewPostgresCluster(t, "shared_buffers=256MB"), services.NewNATSServer(t)
	testutil.Must(t, bus.Start(t.Context()))
	hooks := startWebhookReceiver(t)
	servers := startReplicas(t, 3, store.Address(), bus.Address(), hooks.env...)
	agents, err := strconv.Atoi(os.Getenv("AGENTMARKET_TEST_AGENTS"))
	if err != nil {
		agents = 48
	}
	duration, err := time.ParseDuration(os.Getenv("AGENTMARKET_TEST_FOR"))
	if err != nil {
		duration = 3 * time.Second
	}
	l := startWorkload(t, servers, hooks, agents)
	start := time.Now()
	<-time.After(duration) // the duration of the test
	l.stopAgents()
	l.working.Wait()
	took := time.Since(start)
	l.finish()
	received := 0
	for _, f := range l.subscribers {
		received += f.eventCount()
	}
	t.Logf("%d agents through 3 replicas for %.1f s: %d tasks posted, accepted and completed, %.0f a second; %d events received by %d subscribers; %d webhooks in %d requests",
		agents, took.Seconds(), len(l.posted), float64(len(l.posted))/took.Seconds(), received, len(l.subscribers), len(hooks.tasks), hooks.requestCount())
	if twice := hooks.duplicates(); len(twice) > 0 {
		t.Errorf("without a fault these arrived more than once: %v", twice)
	}
}

// startReplicas starts n replicas on one database.
func startReplicas(t *testing.T, n int, database, nats string, env ...string) (servers []*testserver.Server) {
	t.Helper()
	for range n {
		servers = append(servers, testserver.Start(t, replicaSettings(database, nats, env)...))
	}
	return servers
}

// replicaSettings returns the settings of a replica.
func replicaSettings(database, nats string, env []string) []string {
	return append([]string{
		"AGENTMARKET_DATABASE=" + database, "AGENTMARKET_SECRET_KEY=the same to every replica", "AGENTMARKET_NATS_URL=" + nats,
		fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits),
	}, env...)
}

// workload is a number of agents that use any replica that responds, a subscriber at each
// replica, and a webhook for every task.
type workload struct {
	*testing.T
	servers         []*testserver.Server
	hooks           *webhookReceiver
	subscribers     []*eventSubscriber
	stopSubscribers context.CancelFunc
	listening       sync.WaitGroup
	stopAgents      context.CancelFunc // agents finish their current task
	working         sync.WaitGroup
	// pickReplica returns the replica for the next request. isExpected reports whether to retry
	// at another replica after an error.
	pickReplica func() int
	isRetryable func(error) bool

	mu          sync.Mutex
	posted      []string
	balances    map[string]int // expected balance by API key
	recoveredAt time.Time      // when the failed service was available again
	firstWrites []time.Duration
	errorCounts map[string]int // by message
	recoveries  recoveryTimes
}

// startWorkload starts a workload: half of the agents post, the others accept and complete.
func startWorkload(t *testing.T, servers []*testserver.Server, hooks *webhookReceiver, agents int) *workload {
	t.Helper()
	return newWorkload(t, servers, hooks).start(agents)
}

// newWorkload returns a workload whose agents are not started.
func newWorkload(t *testing.T, servers []*testserver.Server, hooks *webhookReceiver) *workload {
	t.Helper()
	l := &workload{
		T: t, servers: servers, hooks: hooks, isRetryable: isUnavailable, balances: map[string]int{}, errorCounts: map[string]int{},
		firstWrites: make([]time.Duration, len(servers)), recoveries: recoveryTimes{},
		pickReplica: func() int { return rand.IntN(len(servers)) },
	}
	notified := servers[0].Register("notified", map[string]any{"capabilities": []string{"x"}, "webhookUrl": hooks.url})
	l.balances[notified.Key] = startCredits
	listen, hangUp := context.WithCancel(t.Context())
	l.stopSubscribers = hangUp
	for i := range 2 * len(servers) {
		f := &eventSubscriber{socket: i%2 == 0}
		l.subscribers = append(l.subscribers, f)
		l.listening.Go(func() { f.run(listen, servers, i/2) })
	}
	return l
}

// start registers the agents and then runs them until finish is called.
func (l *workload) start(agents int) *workload {
	l.Helper()
	pairs := make([][2]testserver.Agent, agents/2)
	for i := range pairs {
		pairs[i][0] = l.servers[i%len(l.servers)].Register("poster", nil)
		pairs[i][1] = l.servers[(i+1)%len(l.servers)].Register("worker", nil)
		l.balances[pairs[i][0].Key], l.balances[pairs[i][1].Key] = startCredits, startCredits
	}
	ctx, stop := context.WithCancel(l.Context())
	l.stopAgents = stop
	for _, pair := range pairs {
		l.working.Go(func() {
			for ctx.Err() == nil {
				if err := l.trade(pair[0], pair[1]); err != nil {
					l.Error(err)
					return
				}
			}
		})
	}
	l.Cleanup(func() {
		l.stopAgents()
		l.stopSubscribers()
		if l.Failed() {
			for i, server := range l.servers {
				l.Logf("replica %d:\n%s", i, server.Log())
			}
		}
	})
	return l
}

// trade posts, accepts and completes a task, each at any replica that responds.
func (l *workload) trade(poster, worker testserver.Agent) error {
	id, err := tradeTask(l.do, poster, worker)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted = append(l.posted, id)
	l.balances[poster.Key] -= budget
	l.balances[worker.Key] += wage
	return nil
}

// do sends a mutation to one replica after another until one responds. The idempotency key
// ensures that it is applied once.
func (l *workload) do(key, document string, variables map[string]any, data any) error {
	idempotency, deadline := uuid.NewString(), time.Now().Add(testutil.Timeout)
	for {
		at := l.pickReplica()
		err := l.servers[at].Query(key, document, variables, data, "Idempotency-Key", idempotency)
		l.record(at, err)
		if err == nil || !l.isRetryable(err) || time.Now().After(deadline) {
			return err
		}
		waitRetryDelay(l.Context())
	}
}

// isUnavailable reports whether an error means that a replica does not respond or has lost
// the database.
func isUnavailable(err error) bool {
	return isUnreachable(err) || strings.Contains(err.Error(), `"code":"UNAVAILABLE"`)
}

// isUnreachable reports whether an error means that a replica does not respond.
func isUnreachable(err error) bool { return strings.HasPrefix(err.Error(), "status 0") }

// record records the result of a request.
func (l *workload) record(at int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errorCounts[errorMessage(err)]++
		return
	}
	if !l.recoveredAt.IsZero() && l.firstWrites[at] == 0 {
		l.firstWrites[at] = time.Since(l.recoveredAt)
	}
}

// errorMessage returns the message of a GraphQL error.
func errorMessage(err error) string {
	if isUnreachable(err) {
		return "no answer"
	}
	_, message, _ := strings.Cut(err.Error(), `"message":"`)
	message, _, _ = strings.Cut(message, `"`)
	return message
}

// waitForProgress waits until n more tasks are done.
func (l *workload) waitForProgress(n int) {
	l.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.posted)
	}
	enough := count() + n
	testutil.Eventually(l.T, "some more work", func() bool { return count() >= enough || l.Failed() })
}

// waitForRecovery is called when a failed service is available again. It waits until every
// replica has acknowledged a write.
func (l *workload) waitForRecovery(what string) {
	l.Helper()
	l.mu.Lock()
	l.recoveredAt, l.firstWrites = time.Now(), make([]time.Duration, len(l.servers))
	l.mu.Unlock()
	testutil.Eventually(l.T, "a write through every replica after "+what, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return !slices.Contains(l.firstWrites, 0) || l.Failed()
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	times := l.recoveries[what]
	times[0], times[1] = append(times[0], slices.Min(l.firstWrites)), append(times[1], slices.Max(l.firstWrites))
	l.recoveries[what] = times
}

// finish stops the agents and checks that every acknowledged change was applied once, that
// every subscriber received every event once and in order, that the webhook received every
// task, that the balances are as expected, and that the ledger has no violations.
func (l *workload) finish() {
	l.Helper()
	l.stopAgents()
	l.working.Wait()
	for i, f := range l.subscribers {
		testutil.Eventually(l.T, fmt.Sprintf("follower %d to hear of %d tasks", i, len(l.posted)), func() bool { return f.eventCount() >= len(l.posted) })
	}
	testutil.Eventually(l.T, "every webhook", func() bool { return l.hooks.receivedAll(l.posted) })
	l.stopSubscribers()
	l.listening.Wait()
	slices.Sort(l.posted)
	for _, f := range l.subscribers {
		f.check(l.T, l.posted)
	}
	for key, credits := range l.balances {
		if got := readBalance(l.T, l.servers[0], key); got != credits {
			l.Errorf("an agent has %d credits, want %d", got, credits)
		}
	}
	l.servers[0].Verify()
	l.recoveries.log(l.T)
	l.Logf("%d tasks; errors met on the way: %v; webhooks that came again: %d", len(l.posted), l.errorCounts, len(l.hooks.duplicates()))
}

// recoveryTimes maps a fault to the times from its end to the first acknowledged write, and
// to one at each replica.
type recoveryTimes map[string][2][]time.Duration

func (r recoveryTimes) log(t *testing.T) {
	t.Helper()
	for what, times := range r {
		t.Logf("%s, %d times: first write after %s; one through every replica after %s", what, len(times[0]), medianAndWorst(times[0]), medianAndWorst(times[1]))
	}
}

// medianAndWorst formats the median and maximum of durations.
func medianAndWorst(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("%s median, %s worst", all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
}

func readBalance(t *testing.T, server *testserver.Server, key string) int {
	t.Helper()
	var data struct {
		Viewer struct{ Wallet struct{ Balance int } }
	}
	testutil.Must(t, server.Query(key, `{ viewer { wallet { balance } } }`, nil, &data))
	return data.Viewer.Wallet.Balance
}

// mutateFunc sends a mutation with an API key.
type mutateFunc func(key, document string, variables map[string]any, data any) error

// tradeTask posts, accepts and completes a task and returns its ID.
func tradeTask(do mutateFunc, poster, worker testserver.Agent) (string, error) {
	var post struct {
		PostTask struct{ Task struct{ ID string } }
	}
	const input = `{title: "T", description: "D", budget: 2, requiredCapabilities: ["x"]}`
	if err := do(poster.Key, `mutation { postTask(input: `+input+`) { task { id } } }`, nil, &post); err != nil {
		return "", fmt.Errorf("post: %w", err)
	}
	id := map[string]any{"id": post.PostTask.Task.ID}
	var ignored any
	if err := do(worker.Key, `mutation($id: ID!) { acceptTask(input: {taskId: $id}) { task { id } } }`, id, &ignored); err != nil {
		return "", fmt.Errorf("accept: %w", err)
	}
	if err := do(worker.Key, `mutation($id: ID!) { completeTask(input: {taskId: $id, result: "done"}) { task { id } } }`, id, &ignored); err != nil {
		return "", fmt.Errorf("complete: %w", err)
	}
	return post.PostTask.Task.ID, nil
}
