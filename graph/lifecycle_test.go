package graph

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestTaskLifecycle follows a task from posting to rating, with a release in between, as
// the poster, the worker and a stranger.
func TestTaskLifecycle(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, "")
	worker := b.registerAgent(t, `description: "Reads papers", capabilities: [" Research", "research"], pricePerTask: 7`)

	posted := b.mustQuery(t, poster, `mutation { postTask(input: {title: "Summarize", description: "All of it", budget: 25,
		requiredCapabilities: ["Research"], openForMinutes: 60, leaseMinutes: 30}) {
		task { id title description budget requiredCapabilities status origin attempt openUntil leaseUntil result createdAt
			poster { id } worker { id } payout { workerAmount } rating { score } acceptedAt completedAt closedAt }
		wallet { balance heldBalance } } }`)
	posted.assertFields(t, "postTask.task.title", "Summarize", "postTask.task.description", "All of it", "postTask.task.budget", "25",
		"postTask.task.requiredCapabilities", `["research"]`, "postTask.task.status", "OPEN", "postTask.task.origin", "MARKETPLACE",
		"postTask.task.attempt", "0", "postTask.task.openUntil", "2026-03-13T13:00:00Z", "postTask.task.createdAt", "2026-03-13T12:00:00Z",
		"postTask.task.poster.id", poster.id, "postTask.wallet.balance", "75", "postTask.wallet.heldBalance", "25")
	for _, absent := range []string{"leaseUntil", "result", "worker", "payout", "rating", "acceptedAt", "completedAt", "closedAt"} {
		posted.assertFields(t, "postTask.task."+absent, "null")
	}
	id := posted.get(t, "postTask.task.id")

	b.mustQuery(t, caller{}, `{ tasks(filter: {status: [OPEN], capability: "RESEARCH", minBudget: 25, search: "summar"}) { totalCount nodes { id } edges { cursor node { id } } } }`).
		assertFields(t, "tasks.totalCount", "1", "tasks.nodes.0.id", id, "tasks.edges.0.node.id", id)
	b.mustQuery(t, caller{}, `{ agents(filter: {capability: "research", search: "papers", maxPricePerTask: 7, executionMode: [NONE]}) { totalCount nodes { id name description capabilities pricePerTask executionMode reputationScore ratingCount completedTaskCount createdAt } } }`).
		assertFields(t, "agents.totalCount", "1", "agents.nodes.0.id", worker.id, "agents.nodes.0.capabilities", `["research"]`,
			"agents.nodes.0.reputationScore", "null", "agents.nodes.0.executionMode", "NONE")

	act := func(c caller, verb, more, fields string) gqlResponse {
		t.Helper()
		return b.mustQuery(t, c, fmt.Sprintf(`mutation { %s(input: {taskId: %q %s}) { %s } }`, verb, id, more, fields))
	}
	act(worker, "acceptTask", "", "task { status attempt leaseUntil worker { id } }").assertFields(t, "acceptTask.task.status", "ASSIGNED",
		"acceptTask.task.attempt", "1", "acceptTask.task.leaseUntil", "2026-03-13T12:30:00Z", "acceptTask.task.worker.id", worker.id)
	act(worker, "extendTask", "leaseMinutes: 45", "task { leaseUntil }").assertFields(t, "extendTask.task.leaseUntil", "2026-03-13T12:45:00Z")
	act(worker, "releaseTask", "", "task { status worker { id } }").assertFields(t, "releaseTask.task.status", "OPEN", "releaseTask.task.worker", "null")
	act(worker, "acceptTask", "", "task { attempt }").assertFields(t, "acceptTask.task.attempt", "2")
	b.Clock.Advance(time.Minute)
	act(worker, "completeTask", `, result: "It is long."`, "task { status result completedAt payout { workerAmount feeAmount } } wallet { balance heldBalance }").
		assertFields(t, "completeTask.task.status", "COMPLETED", "completeTask.task.result", "It is long.", "completeTask.task.completedAt", "2026-03-13T12:01:00Z",
			"completeTask.task.payout", `{"feeAmount":3,"workerAmount":22}`, "completeTask.wallet.balance", "122", "completeTask.wallet.heldBalance", "0")
	act(poster, "rateTask", `, score: 4, comment: "Quick"`, "task { rating { score comment createdAt } }").
		assertFields(t, "rateTask.task.rating", `{"comment":"Quick","createdAt":"2026-03-13T12:01:00Z","score":4}`)

	b.mustQuery(t, caller{}, fmt.Sprintf(`{ agent(id: %q) { reputationScore ratingCount completedTaskCount } }`, worker.id)).
		assertFields(t, "agent", `{"completedTaskCount":1,"ratingCount":1,"reputationScore":4}`)
	b.mustQuery(t, worker, `{ viewer { workedTasks(status: [COMPLETED]) { nodes { id } totalCount } postedTasks { nodes { id } } wallet { balance
		entries { nodes { id kind amount balanceAfter createdAt task { id } } pageInfo { hasNextPage } } } } }`).
		assertFields(t, "viewer.workedTasks.nodes.0.id", id, "viewer.workedTasks.totalCount", "1", "viewer.postedTasks.nodes", "[]",
			"viewer.wallet.balance", "122", "viewer.wallet.entries.nodes.0.kind", "PAYMENT", "viewer.wallet.entries.nodes.0.amount", "22",
			"viewer.wallet.entries.nodes.0.balanceAfter", "122", "viewer.wallet.entries.nodes.0.task.id", id,
			"viewer.wallet.entries.nodes.1.kind", "GRANT", "viewer.wallet.entries.nodes.1.task", "null")
	b.mustQuery(t, poster, fmt.Sprintf(`{ viewer { postedTasks { nodes { id result } } wallet { balance entries(filter: {kind: [ESCROW_HOLD], taskId: %q}) { nodes { amount } } } } }`, id)).
		assertFields(t, "viewer.postedTasks.nodes.0.result", "It is long.", "viewer.wallet.balance", "75", "viewer.wallet.entries.nodes", `[{"amount":-25}]`)
	b.VerifyLedger()
}

// TestExecuteLifecycle hires an agent, cancels a task, and checks the balances.
func TestExecuteLifecycle(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, `ownerEmail: "ops@example.com"`)
	worker := b.registerAgent(t, `endpointUrl: "https://agent.example.com/run", pricePerTask: 15`)

	id := b.postTask(t, poster, "budget: 40")
	b.mustQuery(t, poster, fmt.Sprintf(`mutation { cancelTask(input: {taskId: %q}) { task { status closedAt } wallet { balance heldBalance } } }`, id)).
		assertFields(t, "cancelTask.task.status", "CANCELLED", "cancelTask.task.closedAt", "2026-03-13T12:00:00Z",
			"cancelTask.wallet.balance", "100", "cancelTask.wallet.heldBalance", "0")

	hired := b.mustQuery(t, poster, fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "Now", budget: 15}) {
		result task { id origin status worker { id executionMode } payout { workerAmount } } wallet { balance } } }`, worker.id))
	hired.assertFields(t, "execute.result", "done", "execute.task.origin", "DIRECT", "execute.task.status", "COMPLETED", "execute.task.worker.id", worker.id,
		"execute.task.worker.executionMode", "ENDPOINT", "execute.task.payout.workerAmount", "13", "execute.wallet.balance", "85")
	direct := hired.get(t, "execute.task.id")
	b.mustQuery(t, worker, fmt.Sprintf(`{ node(id: %q) { __typename id ... on Task { result } } nodes(ids: [%q, "nothing", %q]) { id __typename } tasks { totalCount } }`, direct, id, poster.id)).
		assertFields(t, "node.__typename", "Task", "node.result", "done", "nodes.0.id", id, "nodes.1", "null", "nodes.2.__typename", "Agent", "tasks.totalCount", "1")

	b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
		return "", models.Errorf(models.ExecutionFailed, "no luck")
	}
	assertError(t, "a hire in vain", b.query(t, poster, fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "Now", budget: 15}) { result } }`, worker.id)),
		models.ExecutionFailed, "")
	entries := b.mustQuery(t, poster, `{ viewer { ownerEmail wallet { balance entries(first: 2) { nodes { id kind amount } } } } }`)
	entries.assertFields(t, "viewer.ownerEmail", "ops@example.com", "viewer.wallet.balance", "85",
		"viewer.wallet.entries.nodes.0.kind", "ESCROW_RELEASE", "viewer.wallet.entries.nodes.1.kind", "ESCROW_HOLD")
	b.mustQuery(t, poster, fmt.Sprintf(`{ node(id: %q) { ... on LedgerEntry { amount } } }`, entries.get(t, "viewer.wallet.entries.nodes.0.id"))).
		assertFields(t, "node.amount", "15")
	b.mustQuery(t, caller{}, `{ marketplace { url startingCredits platformFeePercent version } }`).
		assertFields(t, "marketplace", `{"platformFeePercent":10,"startingCredits":100,"url":"https://market.example.com","version":"1.2.3"}`)
	b.VerifyLedger()
}

// TestProfileLifecycle changes a profile and its key.
func TestProfileLifecycle(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	out := b.mustQuery(t, caller{}, `mutation { registerAgent(input: {name: "Mia", description: "Old", endpointUrl: "https://mia.example.com/run"}) {
		apiKey webhookSecret agent { id pricePerTask } wallet { balance heldBalance } } }`)
	out.assertFields(t, "registerAgent.agent.pricePerTask", "10", "registerAgent.wallet", `{"balance":100,"heldBalance":0}`)
	if secret := out.get(t, "registerAgent.webhookSecret"); !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("the secret that signs hires is %q", secret)
	}
	mia := caller{id: out.get(t, "registerAgent.agent.id"), key: out.get(t, "registerAgent.apiKey")}

	const profile = `agent { name capabilities pricePerTask executionMode }`
	b.mustQuery(t, mia, `mutation { updateAgent(input: {description: null, endpointUrl: null, systemPrompt: "Be brief.", capabilities: ["A", "b"], pricePerTask: 3}) { `+profile+` } }`).
		assertFields(t, "updateAgent.agent", `{"capabilities":["a","b"],"executionMode":"SYSTEM_PROMPT","name":"Mia","pricePerTask":3}`)
	b.mustQuery(t, mia, `mutation { updateAgent(input: {name: "Mia 2"}) { `+profile+` } }`).
		assertFields(t, "updateAgent.agent", `{"capabilities":["a","b"],"executionMode":"SYSTEM_PROMPT","name":"Mia 2","pricePerTask":3}`)
	if about := b.mustQuery(t, mia, `{ viewer { agent { description } } }`).get(t, "viewer.agent.description"); about == "Old" {
		t.Error("null did not clear the description")
	}
	b.mustQuery(t, mia, `{ viewer { systemPrompt endpointUrl webhook { status } agent { id } } }`).
		assertFields(t, "viewer.systemPrompt", "Be brief.", "viewer.endpointUrl", "null", "viewer.webhook", "null", "viewer.agent.id", mia.id)

	fresh := caller{id: mia.id, key: b.mustQuery(t, mia, `mutation { rotateApiKey { apiKey } }`).get(t, "rotateApiKey.apiKey")}
	b.mustQuery(t, fresh, `{ viewer { agent { id } } }`).assertFields(t, "viewer.agent.id", mia.id)
	if _, err := b.Keys.Authenticate(t.Context(), mia.key); models.CodeOf(err) != models.Unauthenticated {
		t.Errorf("the old key still works: %v", err)
	}
}

// TestWebhookLifecycle sets a webhook, receives an event, reads the delivery, redelivers it
// and removes the webhook.
func TestWebhookLifecycle(t *testing.T) {
	t.Parallel()
	received := make(chan string, 10)
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received <- r.Header.Get("X-Agentmarket-Delivery")
		_, _ = w.Write([]byte("thanks"))
	}))
	t.Cleanup(receiver.Close)
	roots := x509.NewCertPool()
	roots.AddCert(receiver.Certificate())
	b := newBundleWith(t, ServerOptions{}, outbound.Options{RootCAs: roots, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	testutil.Must(t, b.hooks.Start(t.Context()))
	t.Cleanup(func() { testutil.Must(t, b.hooks.Stop(context.WithoutCancel(t.Context()))) })
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, `capabilities: ["research"]`)

	const hook = `webhook { maskedUrl status secretHint updatedAt failingSince suspendedAt suspendedReason pendingCount failedCount }`
	set := b.mustQuery(t, worker, fmt.Sprintf(`mutation { setWebhook(input: {url: %q}) { secret %s } }`, receiver.URL+"/callback", hook))
	set.assertFields(t, "setWebhook.webhook.maskedUrl", ".../callback", "setWebhook.webhook.status", "ACTIVE", "setWebhook.webhook.updatedAt", "2026-03-13T12:00:00Z")
	secret := set.get(t, "setWebhook.secret")
	if hint := set.get(t, "setWebhook.webhook.secretHint"); len(hint) < 7 || !strings.HasPrefix(secret, hint) {
		t.Errorf("the hint %q does not begin the secret", hint)
	}
	b.mustQuery(t, worker, fmt.Sprintf(`mutation { setWebhook(input: {url: %q}) { secret } }`, receiver.URL+"/callback")).assertFields(t, "setWebhook.secret", "null")
	setEvents := func(events, want string) {
		t.Helper()
		b.mustQuery(t, worker, fmt.Sprintf(`mutation { setWebhook(input: {url: %q%s}) { webhook { events } } }`, receiver.URL+"/callback", events)).
			assertFields(t, "setWebhook.webhook.events", want)
	}
	setEvents("", `["TASK_POSTED"]`)
	setEvents(", events: [TASK_EXPIRED, TASK_POSTED, TASK_ASSIGNED]", `["TASK_POSTED","TASK_ASSIGNED","TASK_EXPIRED"]`)
	setEvents(", events: null", `["TASK_POSTED","TASK_ASSIGNED","TASK_EXPIRED"]`)
	setEvents(", events: []", `["TASK_POSTED"]`)
	rotated := b.mustQuery(t, worker, `mutation { rotateWebhookSecret(input: {overlapMinutes: 5}) { secret `+hook+` } }`)
	if rotated.get(t, "rotateWebhookSecret.secret") == secret {
		t.Error("the secret stayed the same")
	}

	task := b.postTask(t, poster, `budget: 5, requiredCapabilities: ["research"]`)
	delivered := func(attempts string) string {
		t.Helper()
		var id string
		testutil.Eventually(t, attempts+" attempts", func() bool {
			out := b.mustQuery(t, worker, `{ viewer { webhook { deliveries(status: [DELIVERED]) { nodes { id attemptCount } } } } }`)
			if out.get(t, "viewer.webhook.deliveries.nodes") == "[]" || out.get(t, "viewer.webhook.deliveries.nodes.0.attemptCount") != attempts {
				return false
			}
			id = out.get(t, "viewer.webhook.deliveries.nodes.0.id")
			return true
		})
		return id
	}
	delivery := delivered("1")
	if got := <-received; got != delivery {
		t.Errorf("the receiver got delivery %q, want %q", got, delivery)
	}
	out := b.mustQuery(t, worker, fmt.Sprintf(`{ node(id: %q) { ... on WebhookDelivery { event status responseStatus lastError createdAt lastAttemptAt nextAttemptAt
		task { id } requestBody attempts { number startedAt latencyMs responseStatus error responseBody requestHeaders { name value } responseHeaders { name value } } } } }`, delivery))
	for _, want := range []string{`{"name":"X-AgentMarket-Delivery","value":"` + delivery + `"}`, `"X-AgentMarket-Signature"`} {
		if sent := out.get(t, "node.attempts.0.requestHeaders"); !strings.Contains(sent, want) {
			t.Errorf("the headers are %s, want %s", sent, want)
		}
	}
	if headers := out.get(t, "node.attempts.0.responseHeaders"); !strings.Contains(headers, `{"name":"Content-Length","value":"6"}`) {
		t.Errorf("the response headers are %s", headers)
	}
	if sent := out.get(t, "node.requestBody"); !strings.Contains(sent, task) {
		t.Errorf("the body is %s", sent)
	}
	out.assertFields(t, "node.event", "TASK_POSTED", "node.status", "DELIVERED", "node.responseStatus", "200", "node.lastError", "null", "node.task.id", task,
		"node.nextAttemptAt", "null", "node.attempts.0.number", "1", "node.attempts.0.responseStatus", "200", "node.attempts.0.error", "null", "node.attempts.0.responseBody", "thanks")

	b.mustQuery(t, worker, fmt.Sprintf(`mutation { redeliverWebhook(input: {deliveryId: %q}) { delivery { id status } } }`, delivery)).
		assertFields(t, "redeliverWebhook.delivery.id", delivery, "redeliverWebhook.delivery.status", "PENDING")
	if id := delivered("2"); id != delivery {
		t.Errorf("redelivered as %q, want %q", id, delivery)
	}
	b.mustQuery(t, worker, `mutation { pingWebhook { delivered requestBody attempt { number responseStatus responseBody error } } }`).
		assertFields(t, "pingWebhook.delivered", "true", "pingWebhook.attempt.responseStatus", "200", "pingWebhook.attempt.responseBody", "thanks")
	testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("UPDATE webhooks SET status = 'suspended', suspended_reason = 'gone', suspended_at = ? WHERE agent_id = ?", models.NewTime(b.Clock.Now()), worker.id).Error
	}))
	b.mustQuery(t, worker, "{ viewer { "+hook+" } }").
		assertFields(t, "viewer.webhook.status", "SUSPENDED", "viewer.webhook.suspendedReason", "GONE", "viewer.webhook.pendingCount", "0", "viewer.webhook.failedCount", "0")
	b.mustQuery(t, worker, "mutation { resumeWebhook { "+hook+" } }").
		assertFields(t, "resumeWebhook.webhook.status", "ACTIVE", "resumeWebhook.webhook.suspendedReason", "null", "resumeWebhook.webhook.suspendedAt", "null")
	b.mustQuery(t, worker, `mutation { redeliverWebhooks(input: {since: "2026-01-01T00:00:00Z"}) { redeliveredCount endCursor hasNextPage } }`).
		assertFields(t, "redeliverWebhooks.redeliveredCount", "0", "redeliverWebhooks.endCursor", "null", "redeliverWebhooks.hasNextPage", "false")
	b.mustQuery(t, worker, `mutation { removeWebhook { viewer { agent { id } webhook { status } } } }`).
		assertFields(t, "removeWebhook.viewer.agent.id", worker.id, "removeWebhook.viewer.webhook", "null")
}
