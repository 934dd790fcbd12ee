package hooks_test

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/test/e2e/program"
)

// TestRetry tells a receiver that fails three times, each in another way, a
// fourth time: the same bytes under the same id, each try signed anew.
func TestRetry(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	third := make(chan struct{})
	receiver := receive(t, func(w http.ResponseWriter, r *http.Request) {
		switch tries.Add(1) {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			panic(http.ErrAbortHandler) // closes the connection
		case 3:
			close(third)
			<-r.Context().Done() // until the server gives up
		}
	})
	server := program.Start(t, append(receiver.env, retries, "AGENTMARKET_WEBHOOK_TIMEOUT=2s")...)
	agent := register(server, receiver.url, "x")
	standard, err := standardwebhooks.NewWebhook(agent.WebhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	task := post(t, server, register(server, "").Key, "x")

	<-third
	if now := deliveries(t, server, agent.Key)[0]; now.Status != "PENDING" || now.AttemptCount != 2 || now.LastError == "" || now.NextAttemptAt == nil {
		t.Errorf("while it is tried a third time it is %+v", now)
	}
	first := receiver.next(t)
	for try, one := 1, first; ; one = receiver.next(t) {
		id := one.header.Get("X-AgentMarket-Delivery")
		if one.body != first.body || id != first.header.Get("X-AgentMarket-Delivery") || id != one.header.Get("webhook-id") {
			t.Errorf("try %d differs: %+v", try, one)
		}
		if number := one.header.Get("X-AgentMarket-Attempt"); number != strconv.Itoa(try) {
			t.Errorf("try %d says it is attempt %s", try, number)
		}
		if err := standard.Verify([]byte(one.body), one.header); err != nil {
			t.Errorf("try %d: %v", try, err)
		}
		if try++; try > 4 {
			break
		}
	}
	done := settled(t, server, agent.Key, task)
	const want = "DELIVERED after 4; 1: 500 answered 500; 2: 0 the connection broke; 3: 0 no answer in time; 4: 200"
	if done.outcome() != want || done.ID != first.header.Get("X-AgentMarket-Delivery") || done.NextAttemptAt != nil {
		t.Errorf("it is %q, want %q: %+v", done.outcome(), want, done)
	}
	if len(receiver.got) != 0 {
		t.Error("it goes on after a success")
	}
}

// TestRedirect: an answer that points elsewhere is a failure, and nobody goes
// there.
func TestRedirect(t *testing.T) {
	t.Parallel()
	inner, connections := listener(t)
	statuses := []int{301, 302, 303, 307, 308}
	var tries atomic.Int32
	receiver := receive(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inner+"/admin", statuses[int(tries.Add(1)-1)%len(statuses)])
	})
	server := program.Start(t, append(receiver.env, retries)...)
	agent := register(server, receiver.url, "x")
	task := post(t, server, register(server, "").Key, "x")
	const want = "FAILED after 5; 1: 301 answered 301: redirects are not followed; 2: 302 answered 302: redirects are not followed; " +
		"3: 303 answered 303: redirects are not followed; 4: 307 answered 307: redirects are not followed; 5: 308 answered 308: redirects are not followed"
	if done := settled(t, server, agent.Key, task); done.outcome() != want {
		t.Errorf("it is %q", done.outcome())
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
}
