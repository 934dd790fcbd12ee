package webhooks_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// TestRecipients: every agent with one of the capabilities is notified once, except the
// poster.
func TestRecipients(t *testing.T) {
	t.Parallel()
	receiver := startReceiver(t, nil)
	server := testserver.Start(t, receiver.env...)
	at := func(path string, capabilities ...string) testserver.Agent {
		return registerAgent(server, receiver.url+path, capabilities...)
	}
	at("/one", "research", "drawing")
	at("/both", "summarization", "research")
	at("/capital", "Research")
	others := map[string]testserver.Agent{
		"the poster":                 at("/poster", "research", "summarization"),
		"one that can do others":     at("/other", "drawing"),
		"one that can do part of it": at("/part", "resear"),
		"one that can do nothing":    at("/nothing"),
	}
	server.PostTask(others["the poster"].Key, "research", "summarization")
	var notified []string
	for range 3 {
		notified = append(notified, receiver.next(t).path)
	}
	slices.Sort(notified)
	if !slices.Equal(notified, []string{"/both", "/capital", "/one"}) {
		t.Errorf("notified: %v", notified)
	}
	for who, agent := range others { // all deliveries of a task are created before the first is sent
		if deliveries := listDeliveries(t, server, agent.Key); len(deliveries) != 0 {
			t.Errorf("%s is notified: %+v", who, deliveries)
		}
	}
	server.PostTask(registerAgent(server, "").Key, "drawing")
	notified = []string{receiver.next(t).path, receiver.next(t).path}
	slices.Sort(notified)
	if !slices.Equal(notified, []string{"/one", "/other"}) {
		t.Errorf("notified of the next task: %v", notified)
	}
}

// TestRotateSecret replaces the secret. During the overlap the documented signature uses
// the oldest secret and the standard header has all, also after a second rotation and a
// kill -9; after a rotation without an overlap only the new secret signs.
func TestRotateSecret(t *testing.T) {
	t.Parallel()
	receiver := startReceiver(t, nil)
	server := testserver.Start(t, receiver.env...)
	agent := registerAgent(server, receiver.url, "x")
	poster := registerAgent(server, "")
	rotate := func(input string) string {
		t.Helper()
		var data struct{ RotateWebhookSecret struct{ Secret string } }
		mustQuery(t, server, agent.Key, `mutation { rotateWebhookSecret(input: `+input+`) { secret } }`, nil, &data)
		return data.RotateWebhookSecret.Secret
	}
	first := agent.WebhookSecret
	second := rotate(`{}`)
	server.PostTask(poster.Key, "x")
	checkSignatures(t, receiver.next(t), first, []string{first, second}, nil)
	third := rotate(`{overlapMinutes: 1440}`)
	server.PostTask(poster.Key, "x")
	checkSignatures(t, receiver.next(t), first, []string{first, second, third}, nil)
	server.Kill()
	server.Restart()
	server.PostTask(poster.Key, "x")
	checkSignatures(t, receiver.next(t), first, []string{first, second, third}, nil)
	last := rotate(`{overlapMinutes: 0}`)
	server.PostTask(poster.Key, "x")
	checkSignatures(t, receiver.next(t), last, []string{last}, []string{first, second, third})
}

// checkSignatures checks that the documented signature uses one secret, and that the
// standard one verifies with some secrets and not with others.
func checkSignatures(t *testing.T, d delivery, documented string, standard, not []string) {
	t.Helper()
	if got := d.header.Get("X-AgentMarket-Signature"); got != "sha256="+hmacHex(documented, d.body) {
		t.Errorf("the documented signature does not use %s", documented)
	}
	for _, secret := range append(slices.Clone(standard), not...) {
		library, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := library.Verify([]byte(d.body), d.header); (err == nil) != slices.Contains(standard, secret) {
			t.Errorf("the standard signature with %s: %v", secret, err)
		}
	}
}

// TestRedeliver redelivers failed and successful deliveries under the same ID with a new
// signature; other agents may not.
func TestRedeliver(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	receiver := startReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	server := testserver.Start(t, append(receiver.env, "AGENTMARKET_WEBHOOK_RETRIES=10ms")...)
	agent := registerAgent(server, receiver.url, "x")
	task := server.PostTask(registerAgent(server, "").Key, "x")
	first := receiver.next(t)
	receiver.next(t)
	failed := waitForOutcome(t, server, agent.Key, task)
	if got, want := failed.summary(), "FAILED after 2; 1: 502 endpoint returned status 502; 2: 502 endpoint returned status 502"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}

	const document = `mutation($id: ID!) { redeliverWebhook(input: {deliveryId: $id}) { delivery { status } } }`
	var rotated struct{ RotateWebhookSecret struct{ Secret string } }
	mustQuery(t, server, agent.Key, `mutation { rotateWebhookSecret(input: {overlapMinutes: 0}) { secret } }`, nil, &rotated)
	secret := rotated.RotateWebhookSecret.Secret
	broken.Store(false)
	for number := 3; number <= 4; number++ {
		var data struct {
			RedeliverWebhook struct{ Delivery struct{ Status string } }
		}
		mustQuery(t, server, agent.Key, document, map[string]any{"id": failed.ID}, &data)
		if data.RedeliverWebhook.Delivery.Status != "PENDING" {
			t.Errorf("the status of the redelivery is %s", data.RedeliverWebhook.Delivery.Status)
		}
		again := receiver.next(t)
		if again.body != first.body || again.header.Get("X-AgentMarket-Delivery") != failed.ID || again.header.Get("X-AgentMarket-Attempt") != strconv.Itoa(number) {
			t.Errorf("the redelivery differs: %+v", again)
		}
		checkSignatures(t, again, secret, []string{secret}, []string{agent.WebhookSecret})
		if done := waitForOutcome(t, server, agent.Key, task); done.Status != "DELIVERED" || done.AttemptCount != number || done.ResponseStatus != http.StatusOK {
			t.Errorf("got %q", done.summary())
		}
	}
	var data struct{}
	err := server.Query(registerAgent(server, receiver.url, "y").Key, document, map[string]any{"id": failed.ID}, &data)
	if err == nil || !strings.Contains(err.Error(), "NOT_FOUND") {
		t.Errorf("another agent's delivery: %v", err)
	}
}

// TestWebhookRoutes sets, updates, reads and removes a webhook over its REST routes.
func TestWebhookRoutes(t *testing.T) {
	t.Parallel()
	receiver := startReceiver(t, nil)
	server := testserver.Start(t, receiver.env...)
	agent := registerAgent(server, "", "x")
	poster := registerAgent(server, "")
	type envelope struct {
		Success bool
		Data    struct {
			WebhookURL    *string `json:"webhook_url"`
			WebhookSecret string  `json:"webhook_secret"`
		}
		Balance int
	}
	call := func(method, url string) (secret string, shown *string) {
		t.Helper()
		body := ""
		if url != "" {
			body = `{"webhook_url":"` + url + `"}`
		}
		status, text := server.Do(method, "/api/agents/me/webhook", agent.Key, body)
		var answer envelope
		if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK || !answer.Success || answer.Balance != 100 {
			t.Fatalf("%s: %d %s", method, status, text)
		}
		return answer.Data.WebhookSecret, answer.Data.WebhookURL
	}
	shows := func(shown *string, want string) {
		t.Helper()
		if shown == nil || *shown != want {
			t.Errorf("the URL is %v, want %s", shown, want)
		}
	}
	comesTo := func(path, secret string) {
		t.Helper()
		server.PostTask(poster.Key, "x")
		d := receiver.next(t)
		if d.path != path {
			t.Errorf("delivered to %s, want %s", d.path, path)
		}
		checkSignatures(t, d, secret, []string{secret}, nil)
	}

	if _, shown := call(http.MethodGet, ""); shown != nil {
		t.Errorf("before it is set the URL is %s", *shown)
	}
	secret, shown := call(http.MethodPut, receiver.url+"/webhooks/agentmarket")
	shows(shown, "...gentmarket")
	comesTo("/webhooks/agentmarket", secret)
	again, shown := call(http.MethodPut, receiver.url+"/callback")
	shows(shown, ".../callback")
	if again != "" {
		t.Error("the secret is returned twice")
	}
	comesTo("/callback", secret)
	again, shown = call(http.MethodGet, "")
	shows(shown, ".../callback")
	if again != "" {
		t.Error("reading the webhook returns the secret")
	}
	if _, shown := call(http.MethodDelete, ""); shown != nil {
		t.Errorf("after removal the URL is %s", *shown)
	}
	if _, shown := call(http.MethodGet, ""); shown != nil {
		t.Errorf("after removal the URL is %s", *shown)
	}

	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		for _, key := range []string{"", "nobody's"} {
			if status, text := server.Do(method, "/api/agents/me/webhook", key, ""); status != http.StatusUnauthorized {
				t.Errorf("%s with the key %q: %d %s", method, key, status, text)
			}
		}
	}
}
