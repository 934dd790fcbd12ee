// Package replicas_test has several servers on one PostgreSQL work as one
// market, while they are killed and come back.
package replicas_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/e2e/program"
	"agentmarket.space/server/internal/engines"
)

func TestMain(m *testing.M) { program.Main(m) }

// patience is how long anything may take; a silent replica is given up after 15 s.
const patience = 60 * time.Second

// replicas are servers on one database, each with a way of its own to it, and
// one way to NATS.
type replicas struct {
	servers  []*program.Server
	database []*proxy
	nats     *proxy
}

// market starts so many replicas.
func market(t *testing.T, n int, env ...string) replicas {
	t.Helper()
	var r replicas
	var nats string
	address := engines.Postgres(t)
	r.nats, nats = through(t, engines.NATS())
	for range n {
		way, through := through(t, address)
		r.database = append(r.database, way)
		r.servers = append(r.servers, program.Start(t, append([]string{
			"AGENTMARKET_DATABASE=" + through, "AGENTMARKET_SECRET_KEY=the same to every replica", "AGENTMARKET_NATS_URL=" + nats,
		}, env...)...))
	}
	return r
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker, late := time.NewTicker(20*time.Millisecond), time.After(patience)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-late:
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// anywhere sends a mutation to one replica after another until one answers it.
// The key has it happen once however many replicas got it.
func anywhere(servers []*program.Server, key, document string, variables map[string]any, data any) error {
	idempotency := uuid.NewString()
	var err error
	for range 400 {
		server := servers[rand.IntN(len(servers))]
		if err = server.Query(key, document, variables, data, "Idempotency-Key", idempotency); err == nil {
			return nil
		}
		if text := err.Error(); !strings.HasPrefix(text, "status 0") && !strings.Contains(text, "UNAVAILABLE") && !strings.Contains(text, "INTERNAL") {
			return err
		}
	}
	return err
}

// trade has a task posted, accepted and completed, each by whichever replica
// answers, and returns its id.
func trade(servers []*program.Server, poster, worker program.Agent) (string, error) {
	var post struct {
		PostTask struct{ Task struct{ ID string } }
	}
	const input = `{title: "T", description: "D", budget: 2, requiredCapabilities: ["x"]}`
	if err := anywhere(servers, poster.Key, `mutation { postTask(input: `+input+`) { task { id } } }`, nil, &post); err != nil {
		return "", fmt.Errorf("post: %w", err)
	}
	id := map[string]any{"id": post.PostTask.Task.ID}
	var ignored any
	if err := anywhere(servers, worker.Key, `mutation($id: ID!) { acceptTask(input: {taskId: $id}) { task { id } } }`, id, &ignored); err != nil {
		return "", fmt.Errorf("accept: %w", err)
	}
	if err := anywhere(servers, worker.Key, `mutation($id: ID!) { completeTask(input: {taskId: $id, result: "done"}) { task { id } } }`, id, &ignored); err != nil {
		return "", fmt.Errorf("complete: %w", err)
	}
	return post.PostTask.Task.ID, nil
}

// rounds is how often everything fails once.
func rounds() int {
	n, err := strconv.Atoi(os.Getenv("AGENTMARKET_TEST_ROUNDS"))
	if err != nil {
		return 2
	}
	return n
}

// follower hears of every task over server-sent events. When its stream ends it
// goes on after the last cursor at the next replica.
type follower struct {
	mu      sync.Mutex
	cursors []int64
	tasks   []string
}

func (f *follower) follow(ctx context.Context, servers []*program.Server, first int) {
	cursor := "0"
	for i := first; ctx.Err() == nil; i++ {
		body := fmt.Sprintf(`{"query": "subscription { taskPosted(capabilities: [], after: \"%s\") { cursor task { id } } }"}`, cursor)
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, servers[i%len(servers)].URL+"/graphql", strings.NewReader(body))
		if err != nil {
			return
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept", "text/event-stream")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			continue
		}
		cursor = f.read(response.Body, cursor)
		_ = response.Body.Close()
	}
}

// read notes the events of a stream until it ends.
func (f *follower) read(stream io.Reader, cursor string) string {
	lines := bufio.NewScanner(stream)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data:")
		var message struct {
			Data struct {
				TaskPosted *struct {
					Cursor string
					Task   struct{ ID string }
				}
			}
		}
		if !ok || json.Unmarshal([]byte(text), &message) != nil || message.Data.TaskPosted == nil {
			continue
		}
		event := message.Data.TaskPosted
		cursor = event.Cursor
		number, _ := strconv.ParseInt(cursor, 10, 64) // it would be out of order
		f.mu.Lock()
		f.cursors, f.tasks = append(f.cursors, number), append(f.tasks, event.Task.ID)
		f.mu.Unlock()
	}
	return cursor
}

func (f *follower) heard() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.tasks)
}

// TestReplicas: agents post, accept and complete through whichever of three
// replicas answers. Meanwhile one after another is killed, is cut off from the
// database, and hangs on it; all lose it at once, and NATS. Everything that
// was acknowledged happened once, is heard of once and in order wherever one
// listens, and came to the webhook; the books are right.
func TestReplicas(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	notified := map[string]bool{}
	url, env := program.Listen(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var event struct{ Task struct{ ID string } }
		if json.NewDecoder(r.Body).Decode(&event) == nil {
			mu.Lock()
			notified[event.Task.ID] = true
			mu.Unlock()
		}
	}))
	replicas := market(t, 3, append(env, "AGENTMARKET_STARTING_CREDITS=100000", "AGENTMARKET_WEBHOOK_TIMEOUT=2s", "AGENTMARKET_WEBHOOK_RETRIES="+strings.Repeat("100ms,", 99)+"100ms")...)
	servers := replicas.servers
	servers[0].Register("notified", map[string]any{"capabilities": []string{"x"}, "webhookUrl": url})
	ctx, cancel := context.WithCancel(t.Context())
	followers := []*follower{{}, {}, {}}
	var listening sync.WaitGroup
	for i, f := range followers {
		listening.Go(func() { f.follow(ctx, servers, i) })
	}
	const agents, atLeast = 24, 12
	var posted []string
	var working sync.WaitGroup
	faults, over := context.WithCancel(t.Context())
	for i := range agents {
		poster := servers[i%3].Register("poster", nil)
		worker := servers[(i+1)%3].Register("worker", nil)
		working.Go(func() {
			for n := 0; n < atLeast || faults.Err() == nil; n++ {
				id, err := trade(servers, poster, worker)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				posted = append(posted, id)
				mu.Unlock()
			}
		})
	}
	progress := func(n int) {
		mu.Lock()
		before := len(posted)
		mu.Unlock()
		eventually(t, "some more work", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(posted) >= before+n || t.Failed()
		})
	}
	for round := range rounds() {
		at := round % 3
		progress(10)
		servers[at].Kill()
		servers[at].Restart()
		progress(10)
		replicas.database[at].set(true, false) // this one is cut off, the others go on
		progress(10)
		replicas.database[at].set(false, true) // it gets through, and no answer comes
		progress(10)
		replicas.database[at].set(false, false)
		for _, way := range replicas.database { // the engine is gone for all
			way.set(true, false)
		}
		replicas.nats.set(true, false)
		for _, way := range replicas.database {
			way.set(false, false)
		}
		progress(10)
		replicas.nats.set(false, false)
	}
	over()
	working.Wait()
	t.Cleanup(func() {
		if t.Failed() {
			for i, server := range servers {
				t.Logf("replica %d, follower at %d of %d:\n%s", i, followers[i].heard(), len(posted), server.Log())
			}
		}
	})
	for i, f := range followers {
		eventually(t, fmt.Sprintf("follower %d to hear of %d tasks", i, len(posted)), func() bool { return f.heard() >= len(posted) })
	}
	eventually(t, "every webhook", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return !slices.ContainsFunc(posted, func(id string) bool { return !notified[id] })
	})
	cancel()
	listening.Wait()
	slices.Sort(posted)
	for i, f := range followers {
		if !slices.IsSorted(f.cursors) || len(slices.Compact(slices.Clone(f.cursors))) != len(f.cursors) {
			t.Errorf("follower %d got cursors out of order or twice", i)
		}
		slices.Sort(f.tasks)
		if !slices.Equal(f.tasks, posted) {
			t.Errorf("follower %d heard of %d tasks, want the %d posted, each once", i, len(f.tasks), len(posted))
		}
	}
	servers[0].Verify()
}

// TestDeadReplica: what a replica had begun when it died is settled by another,
// and a key that one revokes is unknown to all.
func TestDeadReplica(t *testing.T) {
	t.Parallel()
	called, hold := make(chan struct{}, 1), make(chan struct{})
	url, env := program.Listen(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		called <- struct{}{}
		<-hold
	}))
	t.Cleanup(func() { close(hold) })
	servers := market(t, 2, append(env, "AGENTMARKET_ENDPOINT_TIMEOUT=10m")...).servers
	poster := servers[0].Register("poster", nil)
	hired := servers[1].Register("hired", map[string]any{"endpointUrl": url})
	balance := func() int {
		var data struct {
			Viewer struct{ Wallet struct{ Balance int } }
		}
		if err := servers[1].Query(poster.Key, `{ viewer { wallet { balance } } }`, nil, &data); err != nil {
			t.Error(err)
		}
		return data.Viewer.Wallet.Balance
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var ignored any
		_ = servers[0].Query(poster.Key, `mutation($id: ID!) { execute(input: {agentId: $id, taskDescription: "Do it", budget: 20}) { task { id } } }`,
			map[string]any{"id": hired.ID}, &ignored) // it is cut off
	}()
	<-called
	if got := balance(); got != 80 {
		t.Errorf("%d credits are left while the agent runs, want 80", got)
	}
	servers[0].Kill()
	<-ended
	eventually(t, "the refund", func() bool { return balance() == 100 })
	servers[1].Verify()

	servers[0].Restart()
	var rotated struct{ RotateAPIKey struct{ APIKey string } }
	if err := servers[0].Query(poster.Key, `mutation { rotateApiKey { apiKey } }`, nil, &rotated); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old key to be unknown everywhere", func() bool {
		status, _ := servers[1].Do(http.MethodGet, "/api/agents/me", poster.Key, "")
		return status == http.StatusUnauthorized
	})
	if status, text := servers[1].Do(http.MethodGet, "/api/agents/me", rotated.RotateAPIKey.APIKey, ""); status != http.StatusOK {
		t.Errorf("the new key: %d %s", status, text)
	}
}
