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

// operatorKey is the operator's in tests.
const operatorKey = "operator-key-of-the-tests-0123456789"

// callerRoles are the callers that the access matrices tell apart, in the order of
// their letters in a row.
const callerRoles = "aopwOX" // anonymous, other agent, poster, worker, owner, operator

// Who sees a field, by the letters of [sides].
const (
	everybody = "aopwO" // the operator's key opens nothing of the agents'
	parties   = "pw"
	ownerOnly = "O"
)

// accessFixture is a market with something of everything in it. Each of its agents has
// its part: the poster's and the worker's tasks, and what is the owner's alone.
type accessFixture struct {
	*testserver.Server
	other, poster, worker, owner    testserver.Agent
	open, assigned, done, cancelled string // tasks
	hire, ownEntry, ownDelivery     string
	webhookURL                      string // where the owner is notified
}

// ownerSecrets is what nobody but the owner may see, wherever it turns up.
func (c *accessFixture) ownerSecrets() []string {
	return []string{"owner@example.com", "You are the owner's.", "/owner/run", c.webhookURL, c.owner.Key, c.owner.WebhookSecret, c.ownDelivery}
}

// keys are the API keys of the sides.
func (c *accessFixture) keys() map[rune]string {
	return map[rune]string{'a': "", 'o': c.other.Key, 'p': c.poster.Key, 'w': c.worker.Key, 'O': c.owner.Key, 'X': operatorKey}
}

// newAccessFixture starts a server and has its agents do their part.
func newAccessFixture(t *testing.T) *accessFixture {
	t.Helper()
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/owner/hook" { // its delivery stays on its way
			http.Error(w, "not now", http.StatusInternalServerError)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/gone") { // it is suspended
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
	c.open, c.assigned, c.done, c.cancelled = c.newTask(t, c.poster, "any"), c.newAssignedTask(t), c.newCompletedTask(t), c.newTask(t, c.poster, "any")
	c.mustQuery(t, c.poster, `mutation { cancelTask(input: {taskId: %q}) { task { id } } }`, c.cancelled)
	c.mustQuery(t, c.poster, `mutation { rateTask(input: {taskId: %q, score: 5, comment: "Good."}) { task { id } } }`, c.done)
	c.hire = c.mustQuery(t, c.poster, `mutation { execute(input: {agentId: %q, taskDescription: "D", budget: 2}) { task { id } } }`, c.worker.ID)
	c.mustQuery(t, c.poster, `mutation { rateTask(input: {taskId: %q, score: 4, comment: "Well."}) { task { id } } }`, c.hire)
	c.newTask(t, c.owner, "any") // so that nobody else has as much set aside
	c.ownEntry = "hold:" + c.newTask(t, c.owner, "any")
	c.mustQuery(t, c.owner, `mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, c.newTask(t, c.poster, "owned"))
	const tried = `{ viewer { webhook { deliveries { nodes { id attempts { number } } } } } }`
	testutil.Eventually(t, "the owner's delivery was tried", func() bool {
		_, text := c.query(c.owner.Key, tried)
		return strings.Contains(text, `"number":1`)
	})
	c.ownDelivery = c.mustQuery(t, c.owner, tried)
	c.newTask(t, c.other, "gone")
	testutil.Eventually(t, "the worker's webhook was suspended", func() bool {
		_, text := c.query(c.worker.Key, `{ viewer { webhook { status } } }`)
		return strings.Contains(text, "SUSPENDED")
	})
	return c
}

// query runs a document.
func (c *accessFixture) query(key, document string) (status int, text string) {
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		return 0, err.Error()
	}
	return c.Do(http.MethodPost, "/graphql", key, string(body))
}

// mustQuery runs a document that must succeed and returns the first id in its answer.
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

// newTask posts a task that asks for a capability, and returns its id.
func (c *accessFixture) newTask(t *testing.T, by testserver.Agent, capability string) string {
	t.Helper()
	return c.mustQuery(t, by, `mutation { postTask(input: {title: "T", description: "D", budget: 3, requiredCapabilities: [%q]}) { task { id } } }`, capability)
}

// newAssignedTask is a task that the worker works on.
func (c *accessFixture) newAssignedTask(t *testing.T) string {
	t.Helper()
	return c.mustQuery(t, c.worker, `mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, c.newTask(t, c.poster, "any"))
}

// newCompletedTask is a task that the worker has done.
func (c *accessFixture) newCompletedTask(t *testing.T) string {
	t.Helper()
	return c.mustQuery(t, c.worker, `mutation { completeTask(input: {taskId: %q, result: "The result."}) { task { id } } }`, c.newAssignedTask(t))
}
