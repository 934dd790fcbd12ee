package graph

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// participants is the agents of a task and a stranger, each with a webhook.
type participants struct{ stranger, poster, worker caller }

func (b *bundle) registerParticipants(t *testing.T) participants {
	t.Helper()
	agent := func() caller {
		return b.registerAgent(t, `endpointUrl: "https://agent.example.com/run", webhookUrl: "https://agent.example.com/hook", pricePerTask: 2`)
	}
	return participants{stranger: agent(), poster: agent(), worker: agent()}
}

// createTask creates a task with a status and returns its id.
func (b *bundle) createTask(t *testing.T, c participants, status models.Status) string {
	t.Helper()
	if status == models.Completed {
		return b.completedTask(t, c.poster, c.worker)
	}
	id := b.postTask(t, c.poster, "budget: 5")
	if status == models.Assigned {
		b.mustQuery(t, c.worker, fmt.Sprintf(`mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, id))
	}
	return id
}

// createDelivery creates a delivery to the worker and returns its id.
func (b *bundle) createDelivery(t *testing.T, c participants) string {
	t.Helper()
	task := b.postTask(t, c.poster, "budget: 5")
	row := models.Delivery{ID: uuid.Must(uuid.NewV7()).String(), AgentID: c.worker.id, EventID: 1, TaskID: task, Event: models.WebhookTaskPosted, Status: models.DeliveryFailed}
	testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		if err := tx.Raw("SELECT id FROM events WHERE task_id = ?", task).Scan(&row.EventID).Error; err != nil {
			return err
		}
		return tx.Create(&row).Error
	}))
	return row.ID
}

const (
	allowed         = models.Code("")
	unauthenticated = models.Unauthenticated
	forbidden       = models.Forbidden
	notFound        = models.NotFound
)

// TestMutations_authorization checks each mutation as each caller, with every field of its
// payload. A mutation or payload field without a row fails.
func TestMutations_authorization(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	onTask := func(status models.Status, more string) func(*testing.T, participants) string {
		return func(t *testing.T, c participants) string {
			t.Helper()
			return fmt.Sprintf("taskId: %q %s", b.createTask(t, c, status), more)
		}
	}
	input := func(text string) func(*testing.T, participants) string {
		return func(*testing.T, participants) string { return text }
	}
	rows := map[string]struct {
		input                             func(*testing.T, participants) string
		shows                             string // the fields of the payload
		anonymous, stranger, poster, work models.Code
	}{
		"registerAgent":       {input(`name: "A"`), "agent apiKey webhookSecret wallet", allowed, allowed, allowed, allowed},
		"updateAgent":         {input(`name: "B"`), "agent", unauthenticated, allowed, allowed, allowed},
		"rotateApiKey":        {nil, "apiKey", unauthenticated, allowed, allowed, allowed},
		"postTask":            {input(`title: "T", description: "D", budget: 2`), "task wallet", unauthenticated, allowed, allowed, allowed},
		"acceptTask":          {onTask(models.Open, ""), "task wallet", unauthenticated, allowed, forbidden, allowed},
		"completeTask":        {onTask(models.Assigned, `result: "R"`), "task wallet", unauthenticated, forbidden, forbidden, allowed},
		"cancelTask":          {onTask(models.Open, ""), "task wallet", unauthenticated, forbidden, allowed, forbidden},
		"extendTask":          {onTask(models.Assigned, ""), "task", unauthenticated, forbidden, forbidden, allowed},
		"releaseTask":         {onTask(models.Assigned, ""), "task wallet", unauthenticated, forbidden, forbidden, allowed},
		"rateTask":            {onTask(models.Completed, "score: 5"), "task", unauthenticated, forbidden, allowed, forbidden},
		"setWebhook":          {input(`url: "https://agent.example.com/new"`), "webhook secret", unauthenticated, allowed, allowed, allowed},
		"removeWebhook":       {nil, "viewer", unauthenticated, allowed, allowed, allowed},
		"rotateWebhookSecret": {input(""), "webhook secret", unauthenticated, allowed, allowed, allowed},
		"resumeWebhook":       {nil, "webhook", unauthenticated, allowed, allowed, allowed},
		"redeliverWebhooks":   {input(`since: "2026-01-01T00:00:00Z"`), "redeliveredCount endCursor hasNextPage", unauthenticated, allowed, allowed, allowed},
		"pingWebhook":         {nil, "delivered requestBody attempt", unauthenticated, allowed, allowed, allowed},
		"execute": {func(_ *testing.T, c participants) string {
			return fmt.Sprintf(`agentId: %q, taskDescription: "D", budget: 2`, c.worker.id)
		}, "task result wallet", unauthenticated, allowed, allowed, forbidden},
		"startExecution": {func(_ *testing.T, c participants) string {
			return fmt.Sprintf(`agentId: %q, taskDescription: "D", budget: 2`, c.worker.id)
		}, "task wallet", unauthenticated, allowed, allowed, forbidden},
		"redeliverWebhook": {func(t *testing.T, c participants) string {
			t.Helper()
			return fmt.Sprintf("deliveryId: %q", b.createDelivery(t, c))
		}, "delivery", unauthenticated, notFound, notFound, allowed},
	}
	for _, field := range executableSchema().Schema().Mutation.Fields {
		row, ok := rows[field.Name]
		if !ok {
			t.Errorf("%s has no row", field.Name)
		}
		var shown []string
		for _, part := range executableSchema().Schema().Types[field.Type.Name()].Fields {
			shown = append(shown, part.Name)
		}
		if all := strings.Join(shown, " "); all != row.shows {
			t.Errorf("%s shows %q, want %q", field.Name, all, row.shows)
		}
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := b.registerParticipants(t)
			for _, side := range []struct {
				name   string
				caller caller
				want   models.Code
			}{
				{"a stranger without a key", caller{}, row.anonymous},
				{"a stranger", c.stranger, row.stranger},
				{"the poster", c.poster, row.poster},
				{"the worker", c.worker, row.work},
			} {
				arguments := ""
				if row.input != nil {
					arguments = "(input: {" + row.input(t, c) + "})"
				}
				got := b.query(t, side.caller, "mutation { "+name+arguments+" { "+selectPayload(name)+" } }")
				if side.want != allowed {
					assertError(t, side.name, got, side.want, "")
				} else if len(got.Errors) > 0 || got.Data[name] == nil {
					t.Errorf("%s: answered %v", side.name, got.Errors)
				}
				if name == "rotateApiKey" { // the key was revoked, so continue with other agents
					c = b.registerParticipants(t)
				}
			}
		})
	}
}

// selectPayload selects every field of the payload of a mutation, and the type of its objects.
func selectPayload(mutation string) string {
	schema := executableSchema().Schema()
	var asked []string
	for _, field := range schema.Types[schema.Mutation.Fields.ForName(mutation).Type.Name()].Fields {
		if schema.Types[field.Type.Name()].IsCompositeType() {
			asked = append(asked, field.Name+" { __typename }")
			continue
		}
		asked = append(asked, field.Name)
	}
	return strings.Join(asked, " ")
}

// TestQueries_authorization: what each side reads of a task, a hire, a delivery and money.
// An error reads as its code.
func TestQueries_authorization(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.registerParticipants(t)
	done, delivery := b.completedTask(t, c.poster, c.worker), b.createDelivery(t, c)
	b.mustQuery(t, c.poster, fmt.Sprintf(`mutation { rateTask(input: {taskId: %q, score: 5}) { task { id } } }`, done))
	hire := b.mustQuery(t, c.poster, fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "D", budget: 2}) { task { id } } }`, c.worker.id)).
		get(t, "execute.task.id")
	const null = "null"
	for name, row := range map[string]struct {
		document, path string
		// the results for each caller
		anonymous, stranger, poster, worker string
	}{
		"a result":           {fmt.Sprintf(`{ task(id: %q) { result } }`, done), "task.result", null, null, "the result", "the result"},
		"a result in a list": {`{ tasks(filter: {status: [COMPLETED]}) { nodes { result } } }`, "tasks.nodes.0.result", null, null, "the result", "the result"},
		"a result in a node": {fmt.Sprintf(`{ node(id: %q) { ... on Task { result } } }`, done), "node.result", null, null, "the result", "the result"},
		"a rating":           {fmt.Sprintf(`{ task(id: %q) { rating { score } } }`, done), "task.rating.score", "5", "5", "5", "5"},
		"a hire":             {fmt.Sprintf(`{ task(id: %q) { id } }`, hire), "task.id", "NOT_FOUND", "NOT_FOUND", hire, hire},
		"a hire as a node":   {fmt.Sprintf(`{ node(id: %q) { id } }`, hire), "node", null, null, `{"id":"` + hire + `"}`, `{"id":"` + hire + `"}`},
		"hires in the list":  {`{ tasks { totalCount } }`, "tasks.totalCount", "2", "2", "2", "2"},
		"own hires, worked":  {`{ viewer { workedTasks { totalCount } } }`, "viewer", null, `{"workedTasks":{"totalCount":0}}`, `{"workedTasks":{"totalCount":0}}`, `{"workedTasks":{"totalCount":2}}`},
		"own hires, posted":  {`{ viewer { postedTasks { totalCount } } }`, "viewer", null, `{"postedTasks":{"totalCount":0}}`, `{"postedTasks":{"totalCount":3}}`, `{"postedTasks":{"totalCount":0}}`},
		"a payment":          {fmt.Sprintf(`{ node(id: "payout:%s") { ... on LedgerEntry { amount } } }`, done), "node", null, null, null, `{"amount":4}`},
		"a hold":             {fmt.Sprintf(`{ node(id: "hold:%s") { ... on LedgerEntry { amount } } }`, done), "node", null, null, `{"amount":-5}`, null},
		"a fee":              {fmt.Sprintf(`{ node(id: "fee:%s") { id } }`, done), "node", null, null, null, null},
		"a delivery":         {fmt.Sprintf(`{ node(id: %q) { __typename } }`, delivery), "node", null, null, null, `{"__typename":"WebhookDelivery"}`},
		"own balance":        {`{ viewer { wallet { balance heldBalance } } }`, "viewer", null, `{"wallet":{"balance":100,"heldBalance":0}}`, `{"wallet":{"balance":88,"heldBalance":5}}`, `{"wallet":{"balance":105,"heldBalance":0}}`},
		"own webhook":        {`{ viewer { webhook { maskedUrl deliveries { nodes { status } } } } }`, "viewer", null, `{"webhook":{"deliveries":{"nodes":[]},"maskedUrl":".../hook"}}`, `{"webhook":{"deliveries":{"nodes":[]},"maskedUrl":".../hook"}}`, `{"webhook":{"deliveries":{"nodes":[{"status":"FAILED"}]},"maskedUrl":".../hook"}}`},
		"oneself":            {`{ viewer { agent { id } endpointUrl } }`, "viewer", null, viewerJSON(c.stranger), viewerJSON(c.poster), viewerJSON(c.worker)},
		"another":            {fmt.Sprintf(`{ agent(id: %q) { name executionMode } }`, c.worker.id), "agent.executionMode", "ENDPOINT", "ENDPOINT", "ENDPOINT", "ENDPOINT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, caller := range []caller{{}, c.stranger, c.poster, c.worker} {
				want := []string{row.anonymous, row.stranger, row.poster, row.worker}[i]
				got := b.query(t, caller, row.document)
				seen := got.code()
				if seen == "" {
					seen = got.get(t, row.path)
				}
				if seen != want {
					t.Errorf("caller %d gets %s, want %s", i, seen, want)
				}
			}
		})
	}
}

func viewerJSON(c caller) string {
	return `{"agent":{"id":"` + c.id + `"},"endpointUrl":"https://agent.example.com/run"}`
}

// TestPublicFields lists the fields of agents and tasks that all callers may select. List a
// new field here, and in TestQueries_authorization if its value depends on the caller.
func TestPublicFields(t *testing.T) {
	t.Parallel()
	for name, public := range map[string]string{
		"Agent": "id name description capabilities pricePerTask executionMode reputationScore ratingCount completedTaskCount createdAt",
		"Task": "id title description budget requiredCapabilities status origin poster worker attempt openUntil leaseUntil result " +
			"payout rating createdAt acceptedAt completedAt closedAt",
		"Query": "node nodes viewer agent agents task tasks marketplace __schema __type",
	} {
		fields := map[string]bool{}
		for _, field := range executableSchema().Schema().Types[name].Fields {
			fields[field.Name] = true
		}
		for field := range strings.FieldsSeq(public) {
			if !fields[field] {
				t.Errorf("%s has no %s", name, field)
			}
			delete(fields, field)
		}
		if len(fields) > 0 {
			t.Errorf("%s has fields that are not listed: %v", name, slices.Sorted(maps.Keys(fields)))
		}
	}
}
