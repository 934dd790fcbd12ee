package webhooks_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// maxDuplicateShare is the maximum share of deliveries that arrive more than once.
const maxDuplicateShare = 0.05

// fastReceiver answers at once and counts the requests of each delivery.
type fastReceiver struct {
	mu         sync.Mutex
	deliveries map[string]int
}

func (r *fastReceiver) ServeHTTP(_ http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deliveries[request.Header.Get("X-AgentMarket-Delivery")]++
}

// count returns the number of deliveries and how many requests repeated one.
func (r *fastReceiver) count() (deliveries, repeated int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, requests := range r.deliveries {
		repeated += requests - 1
	}
	return len(r.deliveries), repeated
}

// TestKill_fastReceivers: the server is killed again and again while it delivers to
// receivers that answer at once. Every delivery arrives, and few arrive more than once: the
// time from a response to its record is short, and few requests are on the way.
func TestKill_fastReceivers(t *testing.T) {
	t.Parallel()
	const agents, tasksPerKill = 3, 10
	receiver := &fastReceiver{deliveries: map[string]int{}}
	url, env := testserver.ServeTLS(t, receiver)
	server := testserver.Start(t, append(env, "AGENTMARKET_STARTING_CREDITS=1000000", "AGENTMARKET_WEBHOOK_RETRIES=10ms,10ms,10ms")...)
	for range agents {
		registerAgent(server, url, "x")
	}
	poster := registerAgent(server, "")
	kills := trusttest.Scale(4, 40, 400)
	waitForDeliveries := func(n int) {
		t.Helper()
		testutil.Eventually(t, "deliveries", func() bool {
			deliveries, _ := receiver.count()
			return deliveries >= n
		})
	}
	var posting sync.WaitGroup
	posting.Go(func() {
		for n := range kills * tasksPerKill {
			postUntilAnswered(t, server, poster.Key, fmt.Sprint("task number ", n))
		}
	})
	for kill := range kills {
		waitForDeliveries(agents*tasksPerKill*kill + rand.IntN(agents*tasksPerKill))
		server.Kill()
		server.Restart()
	}
	posting.Wait()
	waitForDeliveries(agents * tasksPerKill * kills)
	deliveries, repeated := receiver.count()
	share := float64(repeated) / float64(deliveries)
	if trusttest.Scale(0, 1, 1) > 0 && share >= maxDuplicateShare { // a few kills are too few for a share
		t.Errorf("%.1f %% of %d deliveries arrived more than once, want less than %.0f %%", 100*share, deliveries, 100*maxDuplicateShare)
	}
	trusttest.Report(t, "fast-receivers", "%d kills, %d deliveries, 0 lost; %.1f %% duplicates", kills, deliveries, 100*share)
	server.Stop()
	server.Verify()
}

// postUntilAnswered posts a task and retries with the same key while the server is down.
func postUntilAnswered(t *testing.T, server *testserver.Server, key, idempotencyKey string) {
	t.Helper()
	const body = `{"title":"Task","description":"Work.","budget":10,"required_capabilities":["x"]}`
	testutil.Eventually(t, "a response", func() bool {
		status, _ := server.Do(http.MethodPost, "/api/tasks", key, body, "Idempotency-Key", idempotencyKey)
		return status == http.StatusCreated || status == http.StatusOK
	})
}
