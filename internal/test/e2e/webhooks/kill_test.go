package webhooks_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// recoveringReceiver fails until it recovers, and then records the tasks it receives.
type recoveringReceiver struct {
	mu             sync.Mutex
	healthy        bool
	attempts       map[string]int // by delivery ID
	enoughReceived chan struct{}  // closed after enoughDeliveries
}

const enoughDeliveries = 5

func (k *recoveringReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.healthy {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	k.attempts[r.Header.Get("X-AgentMarket-Delivery")]++
	if len(k.attempts) == enoughDeliveries && k.enoughReceived != nil {
		close(k.enoughReceived)
		k.enoughReceived = nil
	}
}

func (k *recoveringReceiver) setHealthy() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.healthy = true
}

// webhookView is a webhook as its owner sees it.
type webhookView struct {
	Status, SuspendedReason string
	SuspendedAt             *time.Time
	PendingCount            int
	FailedCount             int
	Events                  []string
}

func readWebhook(t *testing.T, server *testserver.Server, key string) webhookView {
	t.Helper()
	var data struct{ Viewer struct{ Webhook webhookView } }
	mustQuery(t, server, key, `{ viewer { webhook { status suspendedReason suspendedAt pendingCount failedCount events } } }`, nil, &data)
	return data.Viewer.Webhook
}

// waitForWebhook waits until the owner's view of the webhook satisfies a condition.
func waitForWebhook(t *testing.T, server *testserver.Server, key, what string, seen func(webhookView) bool) webhookView {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(3 * testutil.Timeout)
	for {
		now := readWebhook(t, server, key)
		if seen(now) {
			return now
		}
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("timed out waiting for %s: %+v", what, now)
		}
	}
}

// TestKill_redelivery: the server is killed while it redelivers failed webhooks. A retry of
// the call returns the same response, and in the end everything is delivered and nothing is
// pending.
func TestKill_redelivery(t *testing.T) {
	t.Parallel()
	k := &recoveringReceiver{attempts: map[string]int{}, enoughReceived: make(chan struct{})}
	some := k.enoughReceived
	url, env := testserver.ServeTLS(t, k)
	server := testserver.Start(t, append(env, "AGENTMARKET_WEBHOOK_RETRIES=10ms", "AGENTMARKET_STARTING_CREDITS=10000")...)
	agent := registerAgent(server, url, "x")
	poster := registerAgent(server, "")
	const many = 60
	for range many {
		server.PostTask(poster.Key, "x")
	}
	waitForWebhook(t, server, agent.Key, "all to fail", func(v webhookView) bool { return v.FailedCount == many })
	k.setHealthy()

	const again = `mutation { redeliverWebhooks(input: {since: "2020-01-01T00:00:00Z", first: 200}) { redeliveredCount endCursor hasNextPage } }`
	redeliver := func(headers ...string) (n int) {
		t.Helper()
		var data struct {
			RedeliverWebhooks struct {
				RedeliveredCount int
				HasNextPage      bool
			}
		}
		if err := server.Query(agent.Key, again, nil, &data, headers...); err != nil {
			t.Fatal(err)
		}
		if data.RedeliverWebhooks.HasNextPage {
			t.Error("more than one page")
		}
		return data.RedeliverWebhooks.RedeliveredCount
	}
	const key = "the night of the outage"
	if n := redeliver("Idempotency-Key", key); n != many {
		t.Errorf("%d are redelivered, want %d", n, many)
	}
	testutil.Receive(t, "some deliveries", some)
	server.Kill()
	server.Restart()
	if n := redeliver("Idempotency-Key", key); n != many {
		t.Errorf("the retry redelivers %d, want the first response", n)
	}
	if n := redeliver(); n != 0 {
		t.Errorf("%d more are redelivered while all are pending or delivered", n)
	}
	waitForWebhook(t, server, agent.Key, "all to be delivered", func(v webhookView) bool { return v.PendingCount == 0 && v.FailedCount == 0 })
	if n := redeliver(); n != 0 {
		t.Errorf("%d can still be redelivered", n)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.attempts) != many {
		t.Errorf("%d deliveries arrived, want %d", len(k.attempts), many)
	}
	twice := 0
	for _, tries := range k.attempts {
		twice += tries - 1
	}
	t.Logf("%d arrived twice: the server was killed before it recorded the response", twice)
}

// TestKill_suspendedWebhook: a suspension, its reason and pending deliveries survive a
// kill. After a resume the deliveries arrive.
func TestKill_suspendedWebhook(t *testing.T) {
	t.Parallel()
	failing := true
	var mu sync.Mutex
	receiver := startReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if failing {
			w.WriteHeader(http.StatusGone)
		}
	})
	server := testserver.Start(t, receiver.env...)
	owner := registerAgent(server, receiver.url)
	worker := registerAgent(server, "")
	mustQuery(t, server, owner.Key, `mutation($url: URL!) { setWebhook(input: {url: $url, events: [TASK_ASSIGNED, TASK_COMPLETED]}) { secret } }`,
		map[string]any{"url": receiver.url}, new(struct{}))
	accept := func() testserver.Task {
		t.Helper()
		posted := server.PostTask(owner.Key, "x")
		mustQuery(t, server, worker.Key, `mutation($id: ID!) { acceptTask(input: {taskId: $id}) { task { id } } }`, map[string]any{"id": posted.ID}, new(struct{}))
		return posted
	}
	first := accept()
	suspended := waitForWebhook(t, server, owner.Key, "the suspension", func(v webhookView) bool { return v.Status == "SUSPENDED" })
	if suspended.SuspendedReason != "GONE" || suspended.SuspendedAt == nil || len(suspended.Events) != 3 {
		t.Errorf("the suspended webhook is %+v", suspended)
	}
	server.Kill()
	server.Restart()
	accept()
	after := waitForWebhook(t, server, owner.Key, "what is due", func(v webhookView) bool { return v.FailedCount == 2 })
	if after.Status != "SUSPENDED" || !after.SuspendedAt.Equal(*suspended.SuspendedAt) || len(after.Events) != 3 {
		t.Errorf("after the kill the webhook is %+v", after)
	}
	receiver.next(t)
	mu.Lock()
	failing = false
	mu.Unlock()

	var pinged struct{ PingWebhook struct{ Delivered bool } }
	mustQuery(t, server, owner.Key, `mutation { pingWebhook { delivered } }`, nil, &pinged)
	if d := receiver.next(t); !pinged.PingWebhook.Delivered || d.header.Get("X-AgentMarket-Event") != "ping" {
		t.Errorf("ping: %+v, %+v", pinged, d)
	}
	mustQuery(t, server, owner.Key, `mutation { resumeWebhook { webhook { status } } }`, nil, new(struct{}))
	mustQuery(t, server, owner.Key, `mutation { redeliverWebhooks(input: {since: "2020-01-01T00:00:00Z"}) { redeliveredCount } }`, nil, new(struct{}))
	for range 2 {
		if d := receiver.next(t); d.header.Get("X-AgentMarket-Event") != "task.assigned" {
			t.Errorf("the pending delivery is %+v", d)
		}
	}
	mustQuery(t, server, worker.Key, `mutation($id: ID!) { completeTask(input: {taskId: $id, result: "done"}) { task { id } } }`, map[string]any{"id": first.ID}, new(struct{}))
	if d := receiver.next(t); d.header.Get("X-AgentMarket-Event") != "task.completed" {
		t.Errorf("the next delivery is %+v", d)
	}
	waitForWebhook(t, server, owner.Key, "all to be delivered", func(v webhookView) bool { return v.PendingCount == 0 && v.FailedCount == 0 })
	server.Stop()
	server.Verify()
}
