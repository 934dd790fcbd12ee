package replicas_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/program"
	"agentmarket.space/server/internal/test/services"
)

// TestDeadReplica_webhook: a replica dies while the receiver has its request.
// Another makes the delivery.
func TestDeadReplica_webhook(t *testing.T) {
	t.Parallel()
	came, hold := make(chan string, 10), make(chan struct{})
	var release sync.Once
	url, env := program.Listen(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- r.Header.Get("X-AgentMarket-Delivery")
		<-hold
	}))
	t.Cleanup(func() { release.Do(func() { close(hold) }) })
	env = append(env, "AGENTMARKET_WEBHOOK_TIMEOUT=10m") // it is not the time-out that helps
	address := services.Postgres(t)
	dies := program.Start(t, replica(address, services.NATS(), env)...)
	dies.Register("notified", map[string]any{"capabilities": []string{"x"}, "webhookUrl": url})
	poster := dies.Register("poster", nil)
	post(t, dies, poster)
	first := <-came
	survives := program.Start(t, replica(address, services.NATS(), env)...)
	dies.Kill()
	died := time.Now()
	release.Do(func() { close(hold) })
	select {
	case again := <-came:
		t.Logf("made again %.0f s after its replica died", time.Since(died).Seconds())
		if again != first {
			t.Errorf("delivery %s came, want %s again", again, first)
		}
	case <-time.After(90 * time.Second):
		t.Error("the delivery was not made again")
	}
	eventually(t, "the delivery to be noted", func() bool { return unfinishedJobs(t, address) == 0 })
	survives.Verify()
}

// TestQuietWebhooks: while all replicas live, each delivery is made once.
func TestQuietWebhooks(t *testing.T) {
	t.Parallel()
	hooks := listenForHooks(t)
	address := services.Postgres(t)
	servers := market(t, 3, address, services.NATS(), hooks.env...)
	const posts, receivers = 60, 3
	for i := range receivers {
		servers[i].Register("notified", map[string]any{"capabilities": []string{"x"}, "webhookUrl": hooks.url})
	}
	poster := servers[0].Register("poster", nil)
	for i := range posts {
		post(t, servers[i%3], poster)
	}
	eventually(t, "every job to be done", func() bool { return unfinishedJobs(t, address) == 0 })
	if hooks.requests() != posts*receivers || len(hooks.twice()) > 0 || len(hooks.tasks) != posts {
		t.Errorf("%d requests for %d tasks, want %d; more than once came %v", hooks.requests(), len(hooks.tasks), posts*receivers, hooks.twice())
	}
}

// unfinishedJobs is how many jobs wait or are under way.
func unfinishedJobs(t *testing.T, address string) (n int) {
	t.Helper()
	conn := connect(t, address)
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing depends on it
	must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM river_job WHERE state <> 'completed'").Scan(&n))
	return n
}

// hooks is a receiver of webhooks.
type hooks struct {
	url string
	env []string // for servers that are to send to it

	mu    sync.Mutex
	tasks map[string]bool
	tries map[string]int // how often each try of a delivery came
}

// listenForHooks returns a receiver that takes everything.
func listenForHooks(t *testing.T) *hooks {
	t.Helper()
	h := &hooks{tasks: map[string]bool{}, tries: map[string]int{}}
	h.url, h.env = program.Listen(t, h)
	return h
}

// ServeHTTP takes one.
func (h *hooks) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var event struct{ Task struct{ ID string } }
	if json.NewDecoder(r.Body).Decode(&event) != nil {
		return // it is made again
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tasks[event.Task.ID] = true
	h.tries[r.Header.Get("X-AgentMarket-Delivery")]++
}

func (h *hooks) haveAll(tasks []string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !slices.ContainsFunc(tasks, func(id string) bool { return !h.tasks[id] })
}

func (h *hooks) requests() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, times := range h.tries {
		n += times
	}
	return n
}

// twice are the deliveries that came more than once.
func (h *hooks) twice() (ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, times := range h.tries {
		if times > 1 {
			ids = append(ids, id)
		}
	}
	return ids
}
