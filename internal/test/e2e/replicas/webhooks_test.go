package replicas_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestDeadReplica_webhook: a replica is killed while a receiver handles its request.
// Another replica delivers the webhook.
func TestDeadReplica_webhook(t *testing.T) {
	t.Parallel()
	came, hold := make(chan string, 10), make(chan struct{})
	var release sync.Once
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- r.Header.Get("X-AgentMarket-Delivery")
		<-hold
	}))
	t.Cleanup(func() { release.Do(func() { close(hold) }) })
	env = append(env, "AGENTMARKET_WEBHOOK_TIMEOUT=10m") // so that the timeout does not cause the retry
	address := services.NewPostgresDatabase(t)
	dies := testserver.Start(t, replicaSettings(address, services.NATSURL(), env)...)
	dies.Register("notified", map[string]any{"capabilities": []string{"x"}, "webhookUrl": url})
	poster := dies.Register("poster", nil)
	dies.PostTask(poster.Key, "x")
	first := testutil.Receive(t, "a delivery", came)
	survives := testserver.Start(t, replicaSettings(address, services.NATSURL(), env)...)
	dies.Kill()
	died := time.Now()
	release.Do(func() { close(hold) })
	select {
	case again := <-came:
		t.Logf("retried %.0f s after its replica was killed", time.Since(died).Seconds())
		if again != first {
			t.Errorf("received delivery %s, want %s again", again, first)
		}
	case <-time.After(90 * time.Second):
		t.Error("the delivery was not retried")
	}
	testutil.Eventually(t, "the delivery to be recorded", func() bool { return unfinishedJobs(t, address) == 0 })
	survives.Verify()
}

// TestWebhooks_deliveredOnce: while all replicas run, each delivery is attempted once.
func TestWebhooks_deliveredOnce(t *testing.T) {
	t.Parallel()
	hooks := startWebhookReceiver(t)
	address := services.NewPostgresDatabase(t)
	servers := startReplicas(t, 3, address, services.NATSURL(), hooks.env...)
	const posts, receivers = 60, 3
	for i := range receivers {
		servers[i].Register("notified", map[string]any{"capabilities": []string{"x"}, "webhookUrl": hooks.url})
	}
	poster := servers[0].Register("poster", nil)
	for i := range posts {
		servers[i%3].PostTask(poster.Key, "x")
	}
	testutil.Eventually(t, "every job to be done", func() bool { return unfinishedJobs(t, address) == 0 })
	if hooks.requestCount() != posts*receivers || len(hooks.duplicates()) > 0 || len(hooks.tasks) != posts {
		t.Errorf("%d requests for %d tasks, want %d; duplicates: %v", hooks.requestCount(), len(hooks.tasks), posts*receivers, hooks.duplicates())
	}
}

// unfinishedJobs counts the jobs that are waiting or running.
func unfinishedJobs(t *testing.T, address string) (n int) {
	t.Helper()
	conn := connect(t, address)
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the connection is not used again
	testutil.Must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM river_job WHERE state <> 'completed'").Scan(&n))
	return n
}

type webhookReceiver struct {
	url string
	env []string // settings with which servers can call it

	mu       sync.Mutex
	tasks    map[string]bool
	attempts map[string]int // requests by delivery and attempt
}

// startWebhookReceiver starts a receiver that accepts everything.
func startWebhookReceiver(t *testing.T) *webhookReceiver {
	t.Helper()
	h := &webhookReceiver{tasks: map[string]bool{}, attempts: map[string]int{}}
	h.url, h.env = testserver.ServeTLS(t, h)
	return h
}

func (h *webhookReceiver) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var event struct{ Task struct{ ID string } }
	if json.NewDecoder(r.Body).Decode(&event) != nil {
		return // the server retries
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tasks[event.Task.ID] = true
	h.attempts[r.Header.Get("X-AgentMarket-Delivery")]++
}

func (h *webhookReceiver) receivedAll(tasks []string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !slices.ContainsFunc(tasks, func(id string) bool { return !h.tasks[id] })
}

func (h *webhookReceiver) requestCount() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, times := range h.attempts {
		n += times
	}
	return n
}

// duplicates returns the deliveries that arrived more than once.
func (h *webhookReceiver) duplicates() (ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, times := range h.attempts {
		if times > 1 {
			ids = append(ids, id)
		}
	}
	return ids
}
