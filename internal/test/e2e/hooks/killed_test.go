package hooks_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/program"
)

// keeper is a receiver that fails until it is well, and then keeps whom it was told
// of.
type keeper struct {
	mu   sync.Mutex
	well bool
	took map[string]int // tries by delivery
	some chan struct{}  // closed when a few were taken
}

// enough is how many a keeper takes before it says so.
const enough = 5

// ServeHTTP takes one, or fails.
func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.well {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	k.took[r.Header.Get("X-AgentMarket-Delivery")]++
	if len(k.took) == enough && k.some != nil {
		close(k.some)
		k.some = nil
	}
}

func (k *keeper) becomeWell() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.well = true
}

// view is what an owner sees of its webhook.
type view struct {
	Status, SuspendedReason string
	SuspendedAt             *time.Time
	PendingCount            int
	FailedCount             int
	Events                  []string
}

func look(t *testing.T, server *program.Server, key string) view {
	t.Helper()
	var data struct{ Viewer struct{ Webhook view } }
	query(t, server, key, `{ viewer { webhook { status suspendedReason suspendedAt pendingCount failedCount events } } }`, nil, &data)
	return data.Viewer.Webhook
}

// comes waits until the owner sees what it is to see.
func comes(t *testing.T, server *program.Server, key, what string, seen func(view) bool) view {
	t.Helper()
	looks := time.NewTicker(20 * time.Millisecond)
	defer looks.Stop()
	tooLong := time.After(3 * patience)
	for {
		now := look(t, server, key)
		if seen(now) {
			return now
		}
		select {
		case <-looks.C:
		case <-tooLong:
			t.Fatalf("waited for %s: %+v", what, now)
		}
	}
}

// TestKilled_redelivery: the server is killed while it sends again what failed. The
// same call, made again, answers as it did the first time; all is delivered, and
// nothing is left to be sent again.
func TestKilled_redelivery(t *testing.T) {
	t.Parallel()
	k := &keeper{took: map[string]int{}, some: make(chan struct{})}
	some := k.some
	url, env := program.Listen(t, k)
	server := program.Start(t, append(env, "AGENTMARKET_WEBHOOK_RETRIES=10ms", "AGENTMARKET_STARTING_CREDITS=10000")...)
	agent := register(server, url, "x")
	poster := register(server, "")
	const many = 60
	for range many {
		post(t, server, poster.Key, "x")
	}
	comes(t, server, agent.Key, "all to fail", func(v view) bool { return v.FailedCount == many })
	k.becomeWell()

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
			t.Error("there is more")
		}
		return data.RedeliverWebhooks.RedeliveredCount
	}
	const key = "the night of the outage"
	if n := redeliver("Idempotency-Key", key); n != many {
		t.Errorf("%d are sent again, want %d", n, many)
	}
	<-some
	server.Kill()
	server.Restart()
	if n := redeliver("Idempotency-Key", key); n != many {
		t.Errorf("asked again, %d are sent again, want the answer of before", n)
	}
	if n := redeliver(); n != 0 {
		t.Errorf("%d more are sent again while all are under way or delivered", n)
	}
	comes(t, server, agent.Key, "all to be delivered", func(v view) bool { return v.PendingCount == 0 && v.FailedCount == 0 })
	if n := redeliver(); n != 0 {
		t.Errorf("%d are left to be sent again", n)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.took) != many {
		t.Errorf("%d deliveries came, want %d", len(k.took), many)
	}
	twice := 0
	for _, tries := range k.took {
		twice += tries - 1
	}
	t.Logf("%d came twice, which were cut off between the answer and its record", twice)
}

// TestKilled_suspended: a suspension, why it is and what was asked for outlive a
// kill, and so does what is due; resumed, it comes.
func TestKilled_suspended(t *testing.T) {
	t.Parallel()
	gone := true
	var mu sync.Mutex
	receiver := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if gone {
			w.WriteHeader(http.StatusGone)
		}
	})
	server := program.Start(t, receiver.env...)
	owner := register(server, receiver.url)
	worker := register(server, "")
	query(t, server, owner.Key, `mutation($url: URL!) { setWebhook(input: {url: $url, events: [TASK_ASSIGNED, TASK_COMPLETED]}) { secret } }`,
		map[string]any{"url": receiver.url}, new(struct{}))
	accept := func() task {
		t.Helper()
		posted := post(t, server, owner.Key, "x")
		query(t, server, worker.Key, `mutation($id: ID!) { acceptTask(input: {taskId: $id}) { task { id } } }`, map[string]any{"id": posted.ID}, new(struct{}))
		return posted
	}
	first := accept()
	suspended := comes(t, server, owner.Key, "the suspension", func(v view) bool { return v.Status == "SUSPENDED" })
	if suspended.SuspendedReason != "GONE" || suspended.SuspendedAt == nil || len(suspended.Events) != 3 {
		t.Errorf("suspended it is %+v", suspended)
	}
	server.Kill()
	server.Restart()
	accept()
	after := comes(t, server, owner.Key, "what is due", func(v view) bool { return v.FailedCount == 2 })
	if after.Status != "SUSPENDED" || !after.SuspendedAt.Equal(*suspended.SuspendedAt) || len(after.Events) != 3 {
		t.Errorf("after the kill it is %+v", after)
	}
	receiver.next(t)
	mu.Lock()
	gone = false
	mu.Unlock()

	var pinged struct{ PingWebhook struct{ Delivered bool } }
	query(t, server, owner.Key, `mutation { pingWebhook { delivered } }`, nil, &pinged)
	if one := receiver.next(t); !pinged.PingWebhook.Delivered || one.header.Get("X-AgentMarket-Event") != "ping" {
		t.Errorf("pinged: %+v, %+v", pinged, one)
	}
	query(t, server, owner.Key, `mutation { resumeWebhook { webhook { status } } }`, nil, new(struct{}))
	query(t, server, owner.Key, `mutation { redeliverWebhooks(input: {since: "2020-01-01T00:00:00Z"}) { redeliveredCount } }`, nil, new(struct{}))
	for range 2 {
		if one := receiver.next(t); one.header.Get("X-AgentMarket-Event") != "task.assigned" {
			t.Errorf("what was due is %+v", one)
		}
	}
	query(t, server, worker.Key, `mutation($id: ID!) { completeTask(input: {taskId: $id, result: "done"}) { task { id } } }`, map[string]any{"id": first.ID}, new(struct{}))
	if one := receiver.next(t); one.header.Get("X-AgentMarket-Event") != "task.completed" {
		t.Errorf("the next is %+v", one)
	}
	comes(t, server, owner.Key, "all to be delivered", func(v view) bool { return v.PendingCount == 0 && v.FailedCount == 0 })
	server.Stop()
	server.Verify()
}
