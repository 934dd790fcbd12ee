package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/e2e/program"
)

const deliveries = `{ viewer { webhook { deliveries(first: 10) { nodes { id status attempts { number responseStatus error } } } } } }`

// TestWebhook has the documented bytes, headers and verification: by the
// documented lines for Node, the README's, Go, and a Standard Webhooks library.
func TestWebhook(t *testing.T) {
	t.Parallel()
	got, url, env := receiver(t, nil)
	server := program.Start(t, append(env, "AGENTMARKET_MARKETPLACE_URL=https://agentmarket.space")...)
	agent := server.Register("ResearchBot", map[string]any{"capabilities": []string{"research"}, "webhookUrl": url + "/webhooks"})
	other := server.Register("Other", map[string]any{"capabilities": []string{"drawing"}, "webhookUrl": url + "/others"})
	poster := server.Register("Poster", map[string]any{"capabilities": []string{"research"}, "webhookUrl": url + "/own"})
	task := post(t, server, poster.Key, "research")

	one := next(t, got)
	want := fmt.Sprintf(`{"event":"task.posted","task":{"id":%q,"title":"Summarize this paper","description":"Full text...","budget":25,`+
		`"required_capabilities":["research"],"created_at":"%.19sZ"},"marketplace_url":"https://agentmarket.space"}`, task.ID, task.CreatedAt)
	if one.body != want {
		t.Errorf("the body is\n%s\nwant\n%s", one.body, want)
	}
	signature := one.header.Get("X-AgentMarket-Signature")
	for name, value := range map[string]string{"Content-Type": "application/json", "X-AgentMarket-Event": "task.posted"} {
		if one.header.Get(name) != value {
			t.Errorf("%s is %q", name, one.header.Get(name))
		}
	}
	if one.header.Get("X-AgentMarket-Delivery") == "" {
		t.Error("the delivery has no id")
	}

	mac := hmac.New(sha256.New, []byte(agent.WebhookSecret))
	mac.Write([]byte(one.body))
	if expected := "sha256=" + hex.EncodeToString(mac.Sum(nil)); signature != expected {
		t.Errorf("the signature is %s, want %s", signature, expected)
	}
	standard, err := standardwebhooks.NewWebhook(agent.WebhookSecret)
	if err == nil {
		err = standard.Verify([]byte(one.body), one.header)
	}
	if err != nil {
		t.Errorf("Standard Webhooks: %v", err)
	}
	for name, snippet := range map[string]string{"verifySignature": read(t, "testdata/verify_documented.mjs"), "verify": readmeSection(t, "Verify a webhook", "js")} {
		if !verifiedByNode(t, snippet, name, one.body, agent.WebhookSecret, signature) {
			t.Errorf("%s refuses a right signature", name)
		}
		if verifiedByNode(t, snippet, name, one.body+" ", agent.WebhookSecret, signature) || verifiedByNode(t, snippet, name, one.body, other.WebhookSecret, signature) {
			t.Errorf("%s takes a wrong signature", name)
		}
	}

	post(t, server, poster.Key, "drawing") // the next one is the other agent's: nobody else was told of the first
	mac = hmac.New(sha256.New, []byte(other.WebhookSecret))
	two := next(t, got)
	mac.Write([]byte(two.body))
	if two.header.Get("X-AgentMarket-Signature") != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("somebody else was told: %s", two.body)
	}
}

// verifiedByNode runs a function of a snippet on a delivery.
func verifiedByNode(t *testing.T, snippet, function, body, secret, signature string) bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "verify.mjs")
	call := "\nprocess.exit(" + function + "((await import(\"node:fs\")).readFileSync(0, \"utf8\"), ...process.argv.slice(2)) ? 0 : 1);\n"
	if err := os.WriteFile(file, []byte(snippet+call), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program.Tool(t, "node"), file, secret, signature)
	cmd.Stdin = strings.NewReader(body)
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != 1 || len(text) > 0 {
		t.Fatalf("node: %v\n%s", err, text)
	}
	return err == nil
}

// TestWebhook_failsThreeTimes is told a fourth time, with the same id.
func TestWebhook_failsThreeTimes(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	got, url, env := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		switch tries.Add(1) {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			panic(http.ErrAbortHandler) // closes the connection
		case 3:
			<-r.Context().Done() // until the server gives up
		}
	})
	server := program.Start(t, append(env, quickRetry, "AGENTMARKET_WEBHOOK_TIMEOUT=300ms")...)
	agent := server.Register("Agent", map[string]any{"capabilities": []string{"x"}, "webhookUrl": url})
	post(t, server, server.Register("Poster", nil).Key, "x")
	first := next(t, got)
	for range 3 {
		again := next(t, got)
		if again.body != first.body || again.header.Get("X-AgentMarket-Delivery") != first.header.Get("X-AgentMarket-Delivery") {
			t.Errorf("a retry differs: %v", again)
		}
	}
	if last := settled(t, server, agent.Key); last.Status != "DELIVERED" || len(last.Attempts) != 4 || last.Attempts[0].ResponseStatus != 500 || last.Attempts[3].ResponseStatus != 200 {
		t.Errorf("the delivery is %+v", last)
	}
}

// TestWebhook_redirect: an answer that points elsewhere is an answer that is not
// 200, and nobody goes there.
func TestWebhook_redirect(t *testing.T) {
	t.Parallel()
	inner, innerURL, _ := receiver(t, nil)
	got, url, env := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, innerURL+"/admin", http.StatusTemporaryRedirect)
	})
	server := program.Start(t, append(env, "AGENTMARKET_WEBHOOK_RETRIES=10ms")...)
	agent := server.Register("Agent", map[string]any{"capabilities": []string{"x"}, "webhookUrl": url})
	post(t, server, server.Register("Poster", nil).Key, "x")
	next(t, got)
	next(t, got)
	if last := settled(t, server, agent.Key); last.Status != "FAILED" || last.Attempts[1].ResponseStatus != http.StatusTemporaryRedirect {
		t.Errorf("the delivery is %+v", last)
	}
	if len(inner) != 0 {
		t.Error("the redirect was followed")
	}
}

// TestWebhook_private: an address that can be seen to be private is refused when
// it is set, a name that resolves to one when it is dialled.
func TestWebhook_private(t *testing.T) {
	t.Parallel()
	got, url, env := receiver(t, nil)
	server := program.Start(t, append(env, "AGENTMARKET_WEBHOOK_RETRIES=10ms")...)
	named := strings.Replace(url, "127.0.0.1", "localhost", 1)
	agent := server.Register("Agent", map[string]any{"capabilities": []string{"x"}, "webhookUrl": named})
	poster := server.Register("Poster", nil)
	server.Stop()
	server.Restart("AGENTMARKET_ALLOW_NETWORKS=") // the operator has thought better of it

	post(t, server, poster.Key, "x")
	if last := settled(t, server, agent.Key); last.Status != "FAILED" || len(last.Attempts) != 2 || !strings.Contains(last.Attempts[1].Error, "not public") {
		t.Errorf("the delivery is %+v", last)
	}
	if len(got) != 0 {
		t.Error("a private address was called")
	}
	for _, address := range []string{named, url, strings.Replace(url, "127.0.0.1", "[::ffff:7f00:1]", 1), "https://10.0.0.1/hook", "http://example.com/hook"} {
		status, text := server.Do(http.MethodPost, "/api/agents/register", "", fmt.Sprintf(`{"name":"A","capabilities":["x"],"webhook_url":%q}`, address))
		if status != http.StatusBadRequest || !strings.Contains(text, "webhook_url") {
			t.Errorf("%s: %d %s", address, status, text)
		}
	}
}

// settledDelivery is a delivery that is over.
type settledDelivery struct {
	ID, Status string
	Attempts   []struct {
		Number, ResponseStatus int
		Error                  string
	}
}

// settled waits until an agent's newest delivery is over.
func settled(t *testing.T, server *program.Server, key string) settledDelivery {
	t.Helper()
	looks := time.NewTicker(10 * time.Millisecond)
	defer looks.Stop()
	tooLong := time.After(patience)
	for {
		var data struct {
			Viewer struct {
				Webhook struct {
					Deliveries struct{ Nodes []settledDelivery }
				}
			}
		}
		if err := server.Query(key, deliveries, nil, &data); err != nil {
			t.Fatal(err)
		}
		if nodes := data.Viewer.Webhook.Deliveries.Nodes; len(nodes) > 0 && nodes[0].Status != "PENDING" {
			return nodes[0]
		}
		select {
		case <-looks.C:
		case <-tooLong:
			t.Fatal("the delivery is not settled")
		}
	}
}

// TestWebhook_rotateAndRedeliver sets, shows and rotates over the documented routes and their
// GraphQL neighbours; what failed is sent again with the new secret.
func TestWebhook_rotateAndRedeliver(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	got, url, env := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	server := program.Start(t, append(env, "AGENTMARKET_WEBHOOK_RETRIES=10ms")...)
	agent := server.Register("Agent", map[string]any{"capabilities": []string{"x"}})
	status, text := server.Do(http.MethodPut, "/api/agents/me/webhook", agent.Key, fmt.Sprintf(`{"webhook_url":%q}`, url+"/callback"))
	if status != http.StatusOK || !strings.Contains(text, `"webhook_url":".../callback"`) {
		t.Fatalf("PUT: %d %s", status, text)
	}
	if status, text := server.Do(http.MethodGet, "/api/agents/me/webhook", agent.Key, ""); status != http.StatusOK || !strings.Contains(text, `{"webhook_url":".../callback"}`) {
		t.Errorf("GET: %d %s", status, text)
	}
	post(t, server, server.Register("Poster", nil).Key, "x")
	next(t, got)
	next(t, got)
	failed := settled(t, server, agent.Key)

	var rotated struct{ RotateWebhookSecret struct{ Secret string } }
	if err := server.Query(agent.Key, `mutation { rotateWebhookSecret(input: {}) { secret } }`, nil, &rotated); err != nil {
		t.Fatal(err)
	}
	broken.Store(false)
	var again struct {
		RedeliverWebhook struct{ Delivery struct{ Status string } }
	}
	if err := server.Query(agent.Key, `mutation($id: ID!) { redeliverWebhook(input: {deliveryId: $id}) { delivery { status } } }`, map[string]any{"id": failed.ID}, &again); err != nil {
		t.Fatal(err)
	}
	one := next(t, got)
	standard, err := standardwebhooks.NewWebhook(rotated.RotateWebhookSecret.Secret)
	if err == nil {
		err = standard.Verify([]byte(one.body), one.header)
	}
	if err != nil || one.header.Get("X-AgentMarket-Delivery") != failed.ID {
		t.Errorf("sent again: %v, %v", err, one.header)
	}
	if last := settled(t, server, agent.Key); last.Status != "DELIVERED" || len(last.Attempts) != 3 {
		t.Errorf("the delivery is %+v", last)
	}
}
