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
)

// visibilityRow is who sees fields of a type.
type visibilityRow struct {
	typ      string
	document string // the document that leads to the type, with %s for its fields
	allowed  string // of [sides]
	fields   string
}

// visibilityMatrix is the matrix: each field of each object in the schema that is read,
// by who sees it. Payloads of mutations have their rows in TestWhoMayChange of graph.
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
		{"AgentConnection", "{ agents { %s } }", everybody, "edges nodes pageInfo totalCount"},
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
		{"TaskConnection", "{ tasks { %s } }", everybody, "edges nodes pageInfo totalCount"},
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

// queryArguments are what the fields of Query want.
func (c *accessFixture) queryArguments() map[string]string {
	id, ids := fmt.Sprintf("(id: %q)", c.done), fmt.Sprintf("(ids: [%q])", c.done)
	return map[string]string{"node": id, "nodes": ids, "task": id, "agent": fmt.Sprintf("(id: %q)", c.owner.ID)}
}

// TestAccess_fields asks for every field of every object in the schema as each of
// the six sides. Who may see it gets what its reference does; who may not gets
// something else: null, an error, or its own. A field of the schema without a row
// fails.
func TestAccess_fields(t *testing.T) {
	t.Parallel()
	c := newAccessFixture(t)
	s := loadSchema(t)
	left := readableFields(s)
	for _, row := range c.visibilityMatrix() {
		for name := range strings.FieldsSeq(row.fields) {
			field := s.Types[row.typ].Fields.ForName(name)
			if field == nil {
				t.Errorf("%s has no %s", row.typ, name)
				continue
			}
			delete(left, row.typ+"."+name)
			argument := ""
			if row.typ == "Query" {
				argument = c.queryArguments()[name]
			}
			c.checkVisibility(t, row, name, fmt.Sprintf(row.document, name+argument+selectionSet(s, field.Type, 1)))
		}
	}
	for name := range c.eventFields() {
		delete(left, name)
	}
	for name := range left {
		t.Errorf("say who sees %s", name)
	}
}

// checkVisibility holds what each side gets for a document to a row of the matrix.
func (c *accessFixture) checkVisibility(t *testing.T, row visibilityRow, name, document string) {
	t.Helper()
	keys := c.keys()
	reference := rune(row.allowed[len(row.allowed)-1])
	_, want := c.query(keys[reference], document)
	if strings.Contains(want, `"errors"`) || strings.Contains(want, `"`+name+`":null`) || strings.Contains(want, `"`+name+`":[]`) {
		t.Errorf("%s.%s: %c, who may, sees %s", row.typ, name, reference, want)
		return
	}
	for _, side := range callerRoles {
		status, got := c.query(keys[side], document)
		if may := strings.ContainsRune(row.allowed, side); (got == want) != may {
			t.Errorf("%s.%s: %c may see it: %t, and got %d %s\n%s", row.typ, name, side, may, status, got, document)
		}
		if side == 'X' && status != http.StatusUnauthorized {
			t.Errorf("%s.%s: the operator's key is answered %d", row.typ, name, status)
		}
		for _, secret := range c.ownerSecrets() {
			if side != 'O' && row.typ != "WebhookDelivery" && row.typ != "WebhookAttempt" && strings.Contains(got, secret) {
				t.Errorf("%s.%s: %c sees the owner's %q", row.typ, name, side, secret)
			}
		}
	}
}

// loadSchema is the server's.
func loadSchema(t *testing.T) *ast.Schema {
	t.Helper()
	s, err := gqlparser.LoadSchema(&ast.Source{Name: "schema", Input: readFile(t, "../../../schema.graphqls")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// readableFields are the fields of the objects that are read, or heard of.
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

// selectionSet asks for what tells objects of a type apart: all plain fields, and
// those of what is so many steps below. What not all see of an object that all see
// is left out: it has rows of its own.
func selectionSet(s *ast.Schema, typ *ast.Type, steps int) string {
	fields := s.Types[typ.Name()].Fields
	if len(fields) == 0 {
		return ""
	}
	var asked []string
	for _, field := range fields {
		below := selectionSet(s, field.Type, steps-1)
		if strings.HasPrefix(field.Name, "__") || field.Name == "result" || below != "" && steps == 0 {
			continue
		}
		if steps > 0 || s.Types[field.Type.Name()].IsLeafType() {
			asked = append(asked, field.Name+below)
		}
	}
	if len(asked) == 0 {
		return " { __typename }"
	}
	return " { " + strings.Join(asked, " ") + " }"
}

// eventFields are the fields of events, each by the subscription that brings them.
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

// TestAccess_events has each side subscribe to everything from the beginning on,
// and lists which of three objects it hears of: the task that the worker has done,
// the owner's entry and the worker's suspension. What an agent does itself afterwards is where its stream
// has certainly got to. A subscription without a row fails.
func TestAccess_events(t *testing.T) {
	t.Parallel()
	c := newAccessFixture(t)
	s := loadSchema(t)
	rows := map[string]struct {
		arguments, about string
		who, refused     string
	}{
		"taskPosted":       {`(capabilities: [], after: "0")`, c.done, "aowO", "X"}, // a poster is not told of its own
		"taskUpdated":      {`(after: "0")`, c.done, parties, "aX"},
		"executionUpdated": {fmt.Sprintf("(taskId: %q)", c.hire), c.hire, parties, "aX"},
		"walletChanged":    {`(after: "0")`, c.ownEntry, ownerOnly, "aX"},
		"webhookChanged":   {`(after: "0")`, suspendedChange, "w", "aX"}, // whose webhook was suspended
	}
	for _, field := range s.Subscription.Fields {
		row, ok := rows[field.Name]
		if !ok {
			t.Errorf("say who hears %s", field.Name)
			continue
		}
		document := "subscription { " + field.Name + row.arguments + selectionSet(s, field.Type, 1) + " }"
		for _, side := range callerRoles {
			heard, refused := c.collectEvents(t, side, document)
			if want := strings.ContainsRune(row.refused, side); refused != want {
				t.Errorf("%s: %c is refused: %t, want %t", field.Name, side, refused, want)
			}
			if want := strings.ContainsRune(row.who, side); strings.Contains(heard, row.about) != want {
				t.Errorf("%s: %c may hear of %s: %t, and heard %s", field.Name, side, row.about, want, heard)
			}
			if side == rune(row.who[len(row.who)-1]) {
				c.checkAllFields(t, field, heard)
			}
		}
	}
}

// checkAllFields wants every field of a subscription's events in what was heard.
func (c *accessFixture) checkAllFields(t *testing.T, field *ast.FieldDefinition, heard string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(c.eventFields())) {
		typ, name, _ := strings.Cut(name, ".")
		if typ == field.Type.Name() && !strings.Contains(heard, `"`+name+`":`) {
			t.Errorf("%s: no %s in %s", field.Name, name, heard)
		}
	}
}

// collectEvents subscribes as a side and returns all that comes before what is certainly
// later.
func (c *accessFixture) collectEvents(t *testing.T, side rune, document string) (heard string, refused bool) {
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
	defer conn.Close() //nolint:errcheck // it has been read
	query, err := json.Marshal(map[string]any{"type": "subscribe", "id": "1", "payload": map[string]string{"query": document}})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{"type":"connection_init"}`, string(query)} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	last := ""
	for {
		_, text, err := conn.ReadMessage()
		switch message := string(text); {
		case err != nil:
			t.Fatalf("%c: %v after %s", side, err, heard)
		case strings.Contains(message, `"connection_ack"`):
			last = c.triggerSentinel(t, side, document)
		case strings.Contains(message, `"error"`):
			return "", strings.Contains(message, "UNAUTHENTICATED")
		case last != "" && strings.Contains(message, last), strings.Contains(message, `"type":"complete"`):
			return heard, false
		case strings.Contains(message, `"next"`):
			heard += message + "\n"
		}
	}
}

// triggerSentinel does what a side certainly hears of with a document, and returns its id.
// An anonymous one hears of posted tasks alone.
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
	if by == "" { // it is refused
		return "nothing"
	}
	var data struct{ PostTask struct{ Task postedTask } }
	if err := c.Query(by, postTaskMutation, map[string]any{"capability": "x"}, &data); err != nil {
		t.Fatal(err)
	}
	return data.PostTask.Task.ID
}

// What is heard of a webhook that is suspended, and of one that is resumed.
const suspendedChange, resumedChange = `"change":"SUSPENDED"`, `"change":"RESUMED"`

// triggerWebhookSentinel has the webhook of a side changed, and returns what it hears of that: the
// worker's, which is suspended, is resumed, any other suspended.
func (c *accessFixture) triggerWebhookSentinel(t *testing.T, side rune, key string) string {
	t.Helper()
	capability, poster := "fence "+string(side), c.poster
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
