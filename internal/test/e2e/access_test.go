package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

const operatorKey = "operator-key-of-the-tests-0123456789"

// callerRoles are the callers of the access matrices, by the letters in their rows.
const callerRoles = "aopwOX" // anonymous, other agent, poster, worker, owner, operator

// Sets of callers.
const (
	everybody = "aopwO" // the operator's key gives no access to the API of agents
	parties   = "pw"
	ownerOnly = "O"
)

// accessFixture is a market with at least one object of every type. The poster and the
// worker have tasks; the owner has everything that is private.
type accessFixture struct {
	*testserver.Server
	other, poster, worker, owner testserver.Agent
	assigned, done, cancelled    string // tasks
	hire, ownEntry, ownDelivery  string
	webhookURL                   string // the owner's webhook
}

// ownerSecrets returns values that only the owner may see in any response.
func (c *accessFixture) ownerSecrets() []string {
	return []string{"owner@example.com", "You are the owner's.", "/owner/run", c.webhookURL, c.owner.Key, c.owner.WebhookSecret, c.ownDelivery}
}

// keys returns the API key of each caller.
func (c *accessFixture) keys() map[rune]string {
	return map[rune]string{'a': "", 'o': c.other.Key, 'p': c.poster.Key, 'w': c.worker.Key, 'O': c.owner.Key, 'X': operatorKey}
}

// newAccessFixture starts a server and creates the objects.
func newAccessFixture(t *testing.T) *accessFixture {
	t.Helper()
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/owner/hook" { // its delivery stays pending
			http.Error(w, "not now", http.StatusInternalServerError)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/gone") { // the webhook is suspended
			w.WriteHeader(http.StatusGone)
			return
		}
		_, _ = w.Write([]byte(`{"result":"done"}`))
	}))
	server := testserver.Start(t, append(env, "AGENTMARKET_OPERATOR_KEY="+operatorKey, "AGENTMARKET_WEBHOOK_RETRIES=1h", "AGENTMARKET_STARTING_CREDITS=100000")...)
	c := &accessFixture{Server: server, webhookURL: url + "/owner/hook"}
	c.other, c.poster = server.Register("Other", nil), server.Register("Poster", nil)
	c.worker = server.Register("Worker", map[string]any{
		"endpointUrl": url + "/worker/run", "webhookUrl": url + "/worker/gone", "pricePerTask": 2, "capabilities": []string{"gone"},
	})
	c.owner = server.Register("Owner", map[string]any{
		"endpointUrl": url + "/owner/run", "webhookUrl": c.webhookURL, "systemPrompt": "You are the owner's.", "pricePerTask": 2,
		"ownerEmail": "owner@example.com", "description": "Owned.", "capabilities": []string{"owned"},
	})
	if _, text := c.query(c.owner.Key, fmt.Sprintf(`mutation { setWebhook(input: {url: %q, events: [TASK_EXPIRED]}) { webhook { events } } }`, c.webhookURL)); strings.Contains(text, "errors") {
		t.Fatal(text)
	}
	c.assigned, c.done, c.cancelled = c.newAssignedTask(t), c.newCompletedTask(t), c.newTask(t, c.poster, "any")
	c.mustQuery(t, c.poster, `mutation { cancelTask(input: {taskId: %q}) { task { id } } }`, c.cancelled)
	c.mustQuery(t, c.poster, `mutation { rateTask(input: {taskId: %q, score: 5, comment: "Good."}) { task { id } } }`, c.done)
	c.hire = c.mustQuery(t, c.poster, `mutation { execute(input: {agentId: %q, taskDescription: "D", budget: 2}) { task { id } } }`, c.worker.ID)
	c.mustQuery(t, c.poster, `mutation { rateTask(input: {taskId: %q, score: 4, comment: "Well."}) { task { id } } }`, c.hire)
	c.newTask(t, c.owner, "any") // so that no other agent has the same held balance
	c.ownEntry = "hold:" + c.newTask(t, c.owner, "any")
	c.mustQuery(t, c.owner, `mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, c.newTask(t, c.poster, "owned"))
	const attempts = `{ viewer { webhook { deliveries { nodes { id attempts { number } } } } } }`
	testutil.Eventually(t, "the first attempt of the owner's delivery", func() bool {
		_, text := c.query(c.owner.Key, attempts)
		return strings.Contains(text, `"number":1`)
	})
	c.ownDelivery = c.mustQuery(t, c.owner, attempts)
	c.newTask(t, c.other, "gone")
	testutil.Eventually(t, "the worker's webhook to be suspended", func() bool {
		_, text := c.query(c.worker.Key, `{ viewer { webhook { status } } }`)
		return strings.Contains(text, "SUSPENDED")
	})
	return c
}

func (c *accessFixture) query(key, document string) (status int, text string) {
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		return 0, err.Error()
	}
	return c.Do(http.MethodPost, "/graphql", key, string(body))
}

// mustQuery runs a document that must succeed and returns the first ID in its response.
func (c *accessFixture) mustQuery(t *testing.T, by testserver.Agent, document string, args ...any) (id string) {
	t.Helper()
	document = fmt.Sprintf(document, args...)
	_, text := c.query(by.Key, document)
	_, rest, found := strings.Cut(text, `"id":"`)
	id, _, _ = strings.Cut(rest, `"`)
	if !found || strings.Contains(text, `"errors"`) {
		t.Fatalf("%s: %s", document, text)
	}
	return id
}

// newTask posts a task that requires a capability and returns its ID.
func (c *accessFixture) newTask(t *testing.T, by testserver.Agent, capability string) string {
	t.Helper()
	return c.mustQuery(t, by, `mutation { postTask(input: {title: "T", description: "D", budget: 3, requiredCapabilities: [%q]}) { task { id } } }`, capability)
}

// newAssignedTask returns a task assigned to the worker.
func (c *accessFixture) newAssignedTask(t *testing.T) string {
	t.Helper()
	return c.mustQuery(t, c.worker, `mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, c.newTask(t, c.poster, "any"))
}

// newCompletedTask returns a task completed by the worker.
func (c *accessFixture) newCompletedTask(t *testing.T) string {
	t.Helper()
	return c.mustQuery(t, c.worker, `mutation { completeTask(input: {taskId: %q, result: "The result."}) { task { id } } }`, c.newAssignedTask(t))
}
