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

	"agentmarket.space/server/internal/test/e2e/program"
	"agentmarket.space/server/internal/test/services"
)

const (
	startCredits = 100_000
	budget       = 2 // of each task
	wage         = 1 // of it, to the worker
)

// TestLoad: agents work through three replicas at once, as many and for as long
// as AGENTMARKET_TEST_AGENTS and AGENTMARKET_TEST_FOR say.
func TestLoad(t *testing.T) {
	t.Parallel()
	store, bus := services.PrivatePostgres(t, "shared_buffers=256MB"), services.PrivateNATS(t)
	must(t, bus.Start(t.Context()))
	hooks := listenForHooks(t)
	servers := market(t, 3, store.Address(), bus.Address(), hooks.env...)
	agents, err := strconv.Atoi(os.Getenv("AGENTMARKET_TEST_AGENTS"))
	if err != nil {
		agents = 48
	}
	lasts, err := time.ParseDuration(os.Getenv("AGENTMARKET_TEST_FOR"))
	if err != nil {
		lasts = 3 * time.Second
	}
	l := begin(t, servers, hooks, agents)
	began := time.Now()
	<-time.After(lasts) // this is how long it is to last
	l.over()
	l.working.Wait()
	took := time.Since(began)
	l.finish()
	heard := 0
	for _, f := range l.followers {
		heard += f.heard()
	}
	t.Logf("%d agents through 3 replicas for %.1f s: %d tasks posted, accepted and completed, %.0f a second; %d events heard by %d followers; %d webhooks in %d requests",
		agents, took.Seconds(), len(l.posted), float64(len(l.posted))/took.Seconds(), heard, len(l.followers), len(hooks.tasks), hooks.requests())
	if twice := hooks.twice(); len(twice) > 0 {
		t.Errorf("with all replicas alive these came more than once: %v", twice)
	}
}

// market starts so many replicas on one database.
func market(t *testing.T, n int, database, nats string, env ...string) (servers []*program.Server) {
	t.Helper()
	for range n {
		servers = append(servers, program.Start(t, replica(database, nats, env)...))
	}
	return servers
}

// replica is the settings of one.
func replica(database, nats string, env []string) []string {
	return append([]string{
		"AGENTMARKET_DATABASE=" + database, "AGENTMARKET_SECRET_KEY=the same to every replica", "AGENTMARKET_NATS_URL=" + nats,
		fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits),
	}, env...)
}

// load is agents that work through whichever replica answers, somebody who
// listens at each, and a webhook that is told of every task.
type load struct {
	*testing.T
	servers   []*program.Server
	hooks     *hooks
	followers []*follower
	hangUp    context.CancelFunc
	listening sync.WaitGroup
	over      context.CancelFunc // the agents end what they are at
	working   sync.WaitGroup
	// pick says which replica to ask next, and excused whether to go on to another
	// after an error.
	pick    func() int
	excused func(error) bool

	mu      sync.Mutex
	posted  []string
	agents  map[string]int // what each has to spend, by key
	since   time.Time      // when the engine, or the replica, had returned
	first   []time.Duration
	failed  map[string]int // errors met, by what they say
	returns returns
}

// begin starts the work: half of the agents post, half accept and complete.
func begin(t *testing.T, servers []*program.Server, hooks *hooks, agents int) *load {
	t.Helper()
	return prepare(t, servers, hooks).start(agents)
}

// prepare is the load before its agents start.
func prepare(t *testing.T, servers []*program.Server, hooks *hooks) *load {
	t.Helper()
	l := &load{
		T: t, servers: servers, hooks: hooks, excused: away, agents: map[string]int{}, failed: map[string]int{},
		first: make([]time.Duration, len(servers)), returns: returns{},
		pick: func() int { return rand.IntN(len(servers)) },
	}
	notified := servers[0].Register("notified", map[string]any{"capabilities": []string{"x"}, "webhookUrl": hooks.url})
	l.agents[notified.Key] = startCredits
	listen, hangUp := context.WithCancel(t.Context())
	l.hangUp = hangUp
	for i := range 2 * len(servers) {
		f := &follower{socket: i%2 == 0}
		l.followers = append(l.followers, f)
		l.listening.Go(func() { f.follow(listen, servers, i/2) })
	}
	return l
}

// start has the agents work until over is called. All are there before the first
// begins.
func (l *load) start(agents int) *load {
	l.Helper()
	pairs := make([][2]program.Agent, agents/2)
	for i := range pairs {
		pairs[i][0] = l.servers[i%len(l.servers)].Register("poster", nil)
		pairs[i][1] = l.servers[(i+1)%len(l.servers)].Register("worker", nil)
		l.agents[pairs[i][0].Key], l.agents[pairs[i][1].Key] = startCredits, startCredits
	}
	over, stop := context.WithCancel(l.Context())
	l.over = stop
	for _, pair := range pairs {
		l.working.Go(func() {
			for over.Err() == nil {
				if err := l.trade(pair[0], pair[1]); err != nil {
					l.Error(err)
					return
				}
			}
		})
	}
	l.Cleanup(func() {
		l.over()
		l.hangUp()
		if l.Failed() {
			for i, server := range l.servers {
				l.Logf("replica %d:\n%s", i, server.Log())
			}
		}
	})
	return l
}

// trade has a task posted, accepted and completed, each through whichever
// replica answers.
func (l *load) trade(poster, worker program.Agent) error {
	id, err := trade(l.do, poster, worker)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted = append(l.posted, id)
	l.agents[poster.Key] -= budget
	l.agents[worker.Key] += wage
	return nil
}

// do sends a mutation to one replica after another until one answers it. The key
// has it happen once however many replicas got it.
func (l *load) do(key, document string, variables map[string]any, data any) error {
	idempotency, deadline := uuid.NewString(), time.Now().Add(patience)
	for {
		at := l.pick()
		err := l.servers[at].Query(key, document, variables, data, "Idempotency-Key", idempotency)
		l.note(at, err)
		if err == nil || !l.excused(err) || time.Now().After(deadline) {
			return err
		}
		rest(l.Context())
	}
}

// away excuses a replica that does not answer, or that has lost the database.
func away(err error) bool {
	return unreached(err) || strings.Contains(err.Error(), `"code":"UNAVAILABLE"`)
}

// unreached excuses a replica that does not answer.
func unreached(err error) bool { return strings.HasPrefix(err.Error(), "status 0") }

// note notes what came of a request.
func (l *load) note(at int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed[says(err)]++
		return
	}
	if !l.since.IsZero() && l.first[at] == 0 {
		l.first[at] = time.Since(l.since)
	}
}

// says is what an error tells its reader.
func says(err error) string {
	if unreached(err) {
		return "no answer"
	}
	_, message, _ := strings.Cut(err.Error(), `"message":"`)
	message, _, _ = strings.Cut(message, `"`)
	return message
}

// progress waits until so much more has been done.
func (l *load) progress(n int) {
	l.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.posted)
	}
	enough := count() + n
	eventually(l.T, "some more work", func() bool { return count() >= enough || l.Failed() })
}

// returned is called when something that had failed is there again. It waits
// until a write has been acknowledged through every replica.
func (l *load) returned(what string) {
	l.Helper()
	l.mu.Lock()
	l.since, l.first = time.Now(), make([]time.Duration, len(l.servers))
	l.mu.Unlock()
	eventually(l.T, "a write through every replica after "+what, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return !slices.Contains(l.first, 0) || l.Failed()
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	times := l.returns[what]
	times[0], times[1] = append(times[0], slices.Min(l.first)), append(times[1], slices.Max(l.first))
	l.returns[what] = times
}

// finish ends the work. Everything that was acknowledged has happened once, is
// heard of once and in order wherever one listens, and came to the webhook; every
// agent has what its work left it, and the books are right.
func (l *load) finish() {
	l.Helper()
	l.over()
	l.working.Wait()
	for i, f := range l.followers {
		eventually(l.T, fmt.Sprintf("follower %d to hear of %d tasks", i, len(l.posted)), func() bool { return f.heard() >= len(l.posted) })
	}
	eventually(l.T, "every webhook", func() bool { return l.hooks.haveAll(l.posted) })
	l.hangUp()
	l.listening.Wait()
	slices.Sort(l.posted)
	for _, f := range l.followers {
		f.check(l.T, l.posted)
	}
	for key, credits := range l.agents {
		if got := balance(l.T, l.servers[0], key); got != credits {
			l.Errorf("an agent has %d credits, want %d", got, credits)
		}
	}
	l.servers[0].Verify()
	l.returns.print(l.T)
	l.Logf("%d tasks; errors met on the way: %v; webhooks that came again: %d", len(l.posted), l.failed, len(l.hooks.twice()))
}

// returns are, by what had failed, how long it took after its return to the
// first acknowledged write, and to one through each replica.
type returns map[string][2][]time.Duration

func (r returns) print(t *testing.T) {
	t.Helper()
	for what, times := range r {
		t.Logf("%s, %d times: first write after %s; one through every replica after %s", what, len(times[0]), spread(times[0]), spread(times[1]))
	}
}

// spread writes durations down.
func spread(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("%s median, %s worst", all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
}

func balance(t *testing.T, server *program.Server, key string) int {
	t.Helper()
	var data struct {
		Viewer struct{ Wallet struct{ Balance int } }
	}
	must(t, server.Query(key, `{ viewer { wallet { balance } } }`, nil, &data))
	return data.Viewer.Wallet.Balance
}

// mutate has a mutation done for the agent with a key.
type mutate func(key, document string, variables map[string]any, data any) error

// trade has a task posted, accepted and completed, and returns its id.
func trade(do mutate, poster, worker program.Agent) (string, error) {
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
