package webhooks_test

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestRetry: a receiver fails three times in different ways. Each attempt has the same body
// and ID and a new signature, and the fourth succeeds.
func TestRetry(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	third := make(chan struct{})
	receiver := startReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		switch tries.Add(1) {
		case 1:
			w.Header().Set("Connection", "close") // the server repeats a request at once if a reused connection fails
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			panic(http.ErrAbortHandler) // closes the connection
		case 3:
			close(third)
			<-r.Context().Done() // until the server gives up
		}
	})
	server := testserver.Start(t, append(receiver.env, shortRetries, "AGENTMARKET_WEBHOOK_TIMEOUT=2s")...)
	agent := registerAgent(server, receiver.url, "x")
	standard, err := standardwebhooks.NewWebhook(agent.WebhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	task := server.PostTask(registerAgent(server, "").Key, "x")

	testutil.Receive(t, "the third attempt", third)
	if now := listDeliveries(t, server, agent.Key)[0]; now.Status != "PENDING" || now.AttemptCount != 2 || now.LastError == "" || now.NextAttemptAt == nil {
		t.Errorf("during the third attempt: %+v", now)
	}
	first := receiver.next(t)
	for attempt, d := 1, first; ; d = receiver.next(t) {
		id := d.header.Get("X-AgentMarket-Delivery")
		if d.body != first.body || id != first.header.Get("X-AgentMarket-Delivery") || id != d.header.Get("webhook-id") {
			t.Errorf("attempt %d differs: %+v", attempt, d)
		}
		if number := d.header.Get("X-AgentMarket-Attempt"); number != strconv.Itoa(attempt) {
			t.Errorf("attempt %d has the number %s", attempt, number)
		}
		if err := standard.Verify([]byte(d.body), d.header); err != nil {
			t.Errorf("attempt %d: %v", attempt, err)
		}
		if attempt++; attempt > 4 {
			break
		}
	}
	done := waitForOutcome(t, server, agent.Key, task)
	const want = "DELIVERED after 4; 1: 500 endpoint returned status 500; 2: 0 the connection failed; 3: 0 the request timed out; 4: 200"
	if done.summary() != want || done.ID != first.header.Get("X-AgentMarket-Delivery") || done.NextAttemptAt != nil {
		t.Errorf("got %q, want %q: %+v", done.summary(), want, done)
	}
	if len(receiver.deliveries) != 0 {
		t.Error("it is retried after a success")
	}
}

// TestRedirect: a redirect is a failure and is not followed.
func TestRedirect(t *testing.T) {
	t.Parallel()
	inner, connections := countConnections(t)
	statuses := []int{301, 302, 303, 307, 308}
	var tries atomic.Int32
	receiver := startReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inner+"/admin", statuses[int(tries.Add(1)-1)%len(statuses)])
	})
	server := testserver.Start(t, append(receiver.env, shortRetries)...)
	agent := registerAgent(server, receiver.url, "x")
	task := server.PostTask(registerAgent(server, "").Key, "x")
	const want = "FAILED after 5; 1: 301 endpoint returned status 301; redirects are not followed; 2: 302 endpoint returned status 302; redirects are not followed; " +
		"3: 303 endpoint returned status 303; redirects are not followed; 4: 307 endpoint returned status 307; redirects are not followed; 5: 308 endpoint returned status 308; redirects are not followed"
	if done := waitForOutcome(t, server, agent.Key, task); done.summary() != want {
		t.Errorf("got %q", done.summary())
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
}
