package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/internal/test/testutil"
)

// visibilityRow says which callers may see fields of a type.
type visibilityRow struct {
	typ      string
	document string // a document with %s in place of the type's fields
	allowed  string // letters of callerRoles
	fields   string
}

// visibilityMatrix lists who may see each field of each object type.
// TestMutations_authorization of graph covers mutation payloads.
func (c *accessFixture) visibilityMatrix() []visibilityRow {
	const (
		deliveries = `{ viewer { webhook { deliveries { %s } } } }`
		entries    = `{ viewer { wallet { entries { %s } } } }`
		ofTask     = "id title description budget status origin poster worker attempt openUntil payout rating createdAt acceptedAt completedAt"
	)
	task := func(id, rest string) string { return fmt.Sprintf(`{ task(id: %q) { %s } }`, id, rest) }
	delivery := func(rest string) string {
		return fmt.Sprintf(`{ node(id: %q) { ... on WebhookDelivery { %s } } }`, c.ownDelivery, rest)
	}
	return []visibilityRow{
		{"Query", "{ %s }", everybody, "node nodes agent agents task tasks marketplace"},
		{"Query", "{ %s }", ownerOnly, "viewer"},
		{"Marketplace", "{ marketplace { %s } }", everybody, "url startingCredits platformFeePercent version"},
		{"PageInfo", "{ tasks { pageInfo { %s } } }", everybody, "hasNextPage hasPreviousPage startCursor endCursor"},

		{
			"Agent", fmt.Sprintf("{ agent(id: %q) { %%s } }", c.owner.ID), everybody,
			"id name description capabilities pricePerTask executionMode ratingCount completedTaskCount createdAt",
		},
		{"Agent", fmt.Sprintf("{ agent(id: %q) { %%s } }", c.worker.ID), everybody, "reputationScore"},
		{"AgentConnection", "{ agents { %s } }", everybody, "edges nodes pageInfo totalCount totalCountIsExact"},
		{"AgentEdge", "{ agents { edges { %s } } }", everybody, "cursor node"},

		{"Task", task(c.done, "%s"), everybody, ofTask + " requiredCapabilities"},
		{"Task", task(c.assigned, "%s"), everybody, "leaseUntil"},
		{"Task", task(c.cancelled, "%s"), everybody, "closedAt"},
		{"Task", task(c.done, "%s"), parties, "result"},
		{"Task", task(c.hire, "%s"), parties, ofTask + " result"},
		{"TaskPayout", task(c.done, "payout { %s }"), everybody, "workerAmount feeAmount"},
		{"TaskPayout", task(c.hire, "payout { %s }"), parties, "workerAmount feeAmount"},
		{"TaskRating", task(c.done, "rating { %s }"), everybody, "score comment createdAt"},
		{"TaskRating", task(c.hire, "rating { %s }"), parties, "score comment createdAt"},
		{"TaskConnection", "{ tasks { %s } }", everybody, "edges nodes pageInfo totalCount totalCountIsExact"},
		{"TaskEdge", "{ tasks { edges { %s } } }", everybody, "cursor node"},

		{"Viewer", "{ viewer { %s } }", ownerOnly, "agent wallet webhook ownerEmail endpointUrl systemPrompt postedTasks workedTasks"},
		{"Wallet", "{ viewer { wallet { %s } } }", ownerOnly, "balance heldBalance entries"},
		{
			"LedgerEntry", fmt.Sprintf(`{ node(id: %q) { ... on LedgerEntry { %%s } } }`, c.ownEntry), ownerOnly,
			"id kind amount balanceAfter task createdAt",
		},
		{"LedgerEntryConnection", entries, ownerOnly, "edges nodes pageInfo"},
		{"LedgerEntryEdge", fmt.Sprintf(entries, "edges { %s }"), ownerOnly, "cursor node"},
		{"Webhook", "{ viewer { webhook { %s } } }", ownerOnly, "maskedUrl status events secretHint updatedAt pendingCount failedCount failingSince deliveries"},
		{"Webhook", "{ viewer { webhook { %s } } }", "w", "suspendedAt suspendedReason"},
		{
			"WebhookDelivery", delivery("%s"), ownerOnly,
			"id event task status attemptCount requestBody responseStatus lastError createdAt lastAttemptAt nextAttemptAt attempts",
		},
		{"WebhookAttempt", delivery("attempts { %s }"), ownerOnly, "number startedAt latencyMs requestHeaders responseStatus error responseHeaders responseBody"},
		{"HTTPHeader", delivery("attempts { requestHeaders { %s } }"), ownerOnly, "name value"},
		{"WebhookDeliveryConnection", deliveries, ownerOnly, "edges nodes pageInfo"},
		{"WebhookDeliveryEdge", fmt.Sprintf(deliveries, "edges { %s }"), ownerOnly, "cursor node"},
	}
}

// queryArguments returns the required arguments of the fields of Query.
func (c *accessFixture) queryArguments() map[string]string {
	id, ids := fmt.Sprintf("(id: %q)", c.done), fmt.Sprintf("(ids: [%q])", c.done)
	return map[string]string{"node": id, "nodes": ids, "task": id, "agent": fmt.Sprintf("(id: %q)", c.owner.ID)}
}

// TestAccess_fields requests every field of every object type as each of the six callers. A
// caller who may see it gets the same response as the reference caller; the others get
// null, an error or their own value. A field without a row fails the test.
func TestAccess_fields(t *testing.T) {
	t.Parallel()
	c := newAccessFixture(t)
	s := loadSchema(t)
	unlisted := readableFields(s)
	for _, row := range c.visibilityMatrix() {
		for name := range strings.FieldsSeq(row.fields) {
			field := s.Types[row.typ].Fields.ForName(name)
			if field == nil {
				t.Errorf("type %s has no field %s", row.typ, name)
				continue
			}
			delete(unlisted, row.typ+"."+name)
			argument := ""
			if row.typ == "Query" {
				argument = c.queryArguments()[name]
			}
			c.checkVisibility(t, row, name, fmt.Sprintf(row.document, name+argument+selectionSet(s, field.Type, 1)))
		}
	}
	for name := range c.eventFields() {
		delete(unlisted, name)
	}
	for name := range unlisted {
		t.Errorf("%s has no row: add who may see it", name)
	}
}

// checkVisibility checks the response to each caller against a row of the matrix.
func (c *accessFixture) checkVisibility(t *testing.T, row visibilityRow, name, document string) {
	t.Helper()
	keys := c.keys()
	reference := rune(row.allowed[len(row.allowed)-1])
	_, want := c.query(keys[reference], document)
	if strings.Contains(want, `"errors"`) || strings.Contains(want, `"`+name+`":null`) || strings.Contains(want, `"`+name+`":[]`) {
		t.Errorf("%s.%s: %c, who may see it, gets %s", row.typ, name, reference, want)
		return
	}
	for _, side := range callerRoles {
		status, got := c.query(keys[side], document)
		if may := strings.ContainsRune(row.allowed, side); (got == want) != may {
			t.Errorf("%s.%s: %c may see it: %t, got %d %s\n%s", row.typ, name, side, may, status, got, document)
		}
		if side == 'X' && status != http.StatusUnauthorized {
			t.Errorf("%s.%s: status %d with the operator's key, want 401", row.typ, name, status)
		}
		for _, secret := range c.ownerSecrets() {
			if side != 'O' && row.typ != "WebhookDelivery" && row.typ != "WebhookAttempt" && strings.Contains(got, secret) {
				t.Errorf("%s.%s: %c sees the owner's %q", row.typ, name, side, secret)
			}
		}
	}
}

func loadSchema(t *testing.T) *ast.Schema {
	t.Helper()
	s, err := gqlparser.LoadSchema(&ast.Source{Name: "schema", Input: testutil.ReadFile(t, "../../../schema.graphqls")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// readableFields returns the fields of all object types except mutation payloads.
func readableFields(s *ast.Schema) map[string]bool {
	fields := map[string]bool{}
	for _, typ := range s.Types {
		if typ.Kind != ast.Object || typ.BuiltIn || typ == s.Mutation || typ == s.Subscription || strings.HasSuffix(typ.Name, "Payload") {
			continue
		}
		for _, field := range typ.Fields {
			if !strings.HasPrefix(field.Name, "__") {
				fields[typ.Name+"."+field.Name] = true
			}
		}
	}
	return fields
}

// selectionSet selects all leaf fields, and nested objects up to a depth. It leaves out
// Task.result, which some callers may not see and which has its own rows.
func selectionSet(s *ast.Schema, typ *ast.Type, steps int) string {
	fields := s.Types[typ.Name()].Fields
	if len(fields) == 0 {
		return ""
	}
	var selected []string
	for _, field := range fields {
		below := selectionSet(s, field.Type, steps-1)
		if strings.HasPrefix(field.Name, "__") || field.Name == "result" || below != "" && steps == 0 {
			continue
		}
		if steps > 0 || s.Types[field.Type.Name()].IsLeafType() {
			selected = append(selected, field.Name+below)
		}
	}
	if len(selected) == 0 {
		return " { __typename }"
	}
	return " { " + strings.Join(selected, " ") + " }"
}

// eventFields maps the fields of events to their subscription.
func (c *accessFixture) eventFields() map[string]string {
	all := map[string]string{}
	for subscription, fields := range map[string]string{
		"taskPosted":       "TaskPostedEvent: cursor occurredAt task",
		"taskUpdated":      "TaskUpdatedEvent: cursor occurredAt change task",
		"executionUpdated": "ExecutionUpdatedEvent: occurredAt change text task",
		"walletChanged":    "WalletChangedEvent: cursor occurredAt entry wallet",
		"webhookChanged":   "WebhookChangedEvent: cursor occurredAt change webhook",
	} {
		typ, names, _ := strings.Cut(fields, ":")
		for name := range strings.FieldsSeq(names) {
			all[typ+"."+name] = subscription
		}
	}
	return all
}

// TestAccess_events subscribes as each caller from the first event on and checks which
// events of three objects arrive: the completed task, the owner's ledger entry and the
// suspension of the worker's webhook. A later event of the caller's own marks the end. A
// subscription without a row fails the test.
func TestAccess_events(t *testing.T) {
	t.Parallel()
	c := newAccessFixture(t)
	s := loadSchema(t)
	rows := map[string]struct {
		arguments, about string
		who, rejected    string
	}{
		"taskPosted":       {`(capabilities: [], after: "0")`, c.done, "apowO", "X"}, // an empty list includes the poster's own tasks
		"taskUpdated":      {`(after: "0")`, c.done, parties, "aX"},
		"executionUpdated": {fmt.Sprintf("(taskId: %q)", c.hire), c.hire, parties, "aX"},
		"walletChanged":    {`(after: "0")`, c.ownEntry, ownerOnly, "aX"},
		"webhookChanged":   {`(after: "0")`, suspendedChange, "w", "aX"}, // the owner of the suspended webhook
	}
	for _, field := range s.Subscription.Fields {
		row, ok := rows[field.Name]
		if !ok {
			t.Errorf("%s has no row: add who receives its events", field.Name)
			continue
		}
		document := "subscription { " + field.Name + row.arguments + selectionSet(s, field.Type, 1) + " }"
		for _, side := range callerRoles {
			received, rejected := c.collectEvents(t, side, document)
			if want := strings.ContainsRune(row.rejected, side); rejected != want {
				t.Errorf("%s: %c is rejected: %t, want %t", field.Name, side, rejected, want)
			}
			if want := strings.ContainsRune(row.who, side); strings.Contains(received, row.about) != want {
				t.Errorf("%s: %c may receive %s: %t, got %s", field.Name, side, row.about, want, received)
			}
			if side == rune(row.who[len(row.who)-1]) {
				c.checkAllFields(t, field, received)
			}
		}
	}
}

// checkAllFields checks that the received events contain every field of their type.
func (c *accessFixture) checkAllFields(t *testing.T, field *ast.FieldDefinition, received string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(c.eventFields())) {
		typ, name, _ := strings.Cut(name, ".")
		if typ == field.Type.Name() && !strings.Contains(received, `"`+name+`":`) {
			t.Errorf("%s: no %s in %s", field.Name, name, received)
		}
	}
}

// collectEvents subscribes as a caller and returns all messages before the sentinel event.
func (c *accessFixture) collectEvents(t *testing.T, side rune, document string) (received string, rejected bool) {
	t.Helper()
	header := http.Header{}
	if key := c.keys()[side]; key != "" {
		header.Set("X-API-Key", key)
	}
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
	conn, response, err := dialer.DialContext(t.Context(), strings.Replace(c.URL, "http", "ws", 1)+"/graphql", header)
	if err != nil {
		return "", response != nil && response.StatusCode == http.StatusUnauthorized
	}
	defer conn.Close() //nolint:errcheck // everything is read
	query, err := json.Marshal(map[string]any{"type": "subscribe", "id": "1", "payload": map[string]string{"query": document}})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{"type":"connection_init"}`, string(query)} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	sentinel := ""
	for {
		_, text, err := conn.ReadMessage()
		switch message := string(text); {
		case err != nil:
			t.Fatalf("%c: %v after %s", side, err, received)
		case strings.Contains(message, `"connection_ack"`):
			sentinel = c.triggerSentinel(t, side, document)
		case strings.Contains(message, `"error"`):
			return "", strings.Contains(message, "UNAUTHENTICATED")
		case sentinel != "" && strings.Contains(message, sentinel), strings.Contains(message, `"type":"complete"`):
			return received, false
		case strings.Contains(message, `"next"`):
			received += message + "\n"
		}
	}
}

// triggerSentinel triggers an event that the caller receives, and returns its ID. Anonymous
// callers receive posted tasks only.
func (c *accessFixture) triggerSentinel(t *testing.T, side rune, document string) string {
	t.Helper()
	agents := map[rune]string{'o': c.other.Key, 'p': c.poster.Key, 'w': c.worker.Key, 'O': c.owner.Key}
	by := agents[side]
	if strings.Contains(document, "webhookChanged") && by != "" {
		return c.triggerWebhookSentinel(t, side, by)
	}
	if strings.Contains(document, "taskPosted") {
		by = agents['o']
		if side == 'o' {
			by = agents['p']
		}
	}
	if by == "" { // the subscription is rejected
		return "nothing"
	}
	return c.PostTask(by, "x").ID
}

// Parts of the events of a suspended and of a resumed webhook.
const suspendedChange, resumedChange = `"change":"SUSPENDED"`, `"change":"RESUMED"`

// triggerWebhookSentinel resumes the worker's webhook, which is suspended, or suspends that
// of another caller. It returns a part of the event.
func (c *accessFixture) triggerWebhookSentinel(t *testing.T, side rune, key string) string {
	t.Helper()
	capability, poster := "sentinel "+string(side), c.poster
	if side == 'p' {
		poster = c.other
	}
	documents := []string{
		fmt.Sprintf(`mutation { updateAgent(input: {capabilities: [%q]}) { agent { id } } }`, capability),
		fmt.Sprintf(`mutation { setWebhook(input: {url: %q}) { webhook { status } } }`, strings.TrimSuffix(c.webhookURL, "/hook")+"/gone"),
	}
	if side == 'w' {
		documents = []string{`mutation { resumeWebhook { webhook { status } } }`}
	}
	for _, document := range documents {
		if _, text := c.query(key, document); strings.Contains(text, "errors") {
			t.Fatal(text)
		}
	}
	if side == 'w' {
		return resumedChange
	}
	c.newTask(t, poster, capability)
	return suspendedChange
}
