package graph

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/models"
)

// lockedBuffer is a buffer for concurrent use.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String returns the text so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// newLoggedBundle returns a bundle whose server logs warnings and errors to the buffer.
func newLoggedBundle(t *testing.T) (*bundle, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return newBundleWith(t, ServerOptions{Introspection: true, Logger: logger}, outbound.Options{}), log
}

// TestInvalidSubscriptions checks that every transport rejects an invalid subscription with
// INVALID_INPUT, and that nothing is logged.
func TestInvalidSubscriptions(t *testing.T) {
	t.Parallel()
	b, log := newLoggedBundle(t)
	agent := b.registerAgent(t, "")
	for name, d := range map[string]document{
		"two fields":                     {`subscription { taskPosted { cursor } taskUpdated { cursor } }`, ""},
		"two aliases of a field":         {`subscription { a: taskPosted { cursor } b: taskPosted { cursor } }`, ""},
		"a field and its alias":          {`subscription { taskPosted { cursor } b: taskPosted { cursor } }`, ""},
		"in a fragment":                  {`subscription { ...F } fragment F on Subscription { a: taskPosted { cursor } b: taskPosted { cursor } }`, ""},
		"in two fragments":               {`subscription { ...F ...G } fragment F on Subscription { a: taskPosted { cursor } } fragment G on Subscription { b: taskPosted { cursor } }`, ""},
		"in nested fragments":            {`subscription { a: taskPosted { cursor } ... { ... on Subscription { ...F } } } fragment F on Subscription { b: taskPosted { cursor } }`, ""},
		"an introspection field":         {`subscription { __typename }`, ""},
		"an aliased introspection field": {`subscription { a: __typename }`, ""},
		"an introspection field beside":  {`subscription { taskPosted { cursor } __typename }`, ""},
		"the schema beside":              {`subscription { taskPosted { cursor } ... { __schema { queryType { name } } } }`, ""},
		"skipped":                        {`subscription { taskPosted @skip(if: true) { cursor } }`, ""},
		"not included":                   {`subscription { taskPosted @include(if: false) { cursor } }`, ""},
		"skipped by a variable":          {`subscription($s: Boolean!) { taskPosted @skip(if: $s) { cursor } }`, `{"s":true}`},
		"a skipped fragment":             {`subscription { ...F @skip(if: true) } fragment F on Subscription { taskPosted { cursor } }`, ""},
		"a skipped inline fragment":      {`subscription { ... @include(if: false) { taskPosted { cursor } } }`, ""},
		"one of two is skipped":          {`subscription($s: Boolean!) { a: taskPosted @skip(if: $s) { cursor } b: taskPosted @include(if: $s) { cursor } }`, `{"s":true}`},
		"an unknown field":               {`subscription { nothing }`, ""},
		"a fragment of another type":     {`subscription { ... on Query { tasks { totalCount } } }`, ""},
		"a fragment cycle":               {`subscription { ...F } fragment F on Subscription { ...G } fragment G on Subscription { ...F taskPosted { cursor } }`, ""},
		"an unknown directive":           {`subscription { taskPosted @live { cursor } }`, ""},
		"@defer":                         {`subscription { taskPosted { ... @defer { cursor } } }`, ""},
		"an unknown variable":            {`subscription { taskPosted(after: $a) { cursor } }`, ""},
		"a variable of the wrong type":   {`subscription($a: String) { taskPosted(after: $a) { cursor } }`, `{"a":7}`},
		"not a cursor":                   {`subscription { taskPosted(after: "x") { cursor } }`, ""},
	} {
		for transport, got := range b.sendEverywhere(t, agent, d) {
			if got.code() != string(models.InvalidInput) || got.Data != nil {
				t.Errorf("%s, %s: got %v, %v", name, transport, got.Data, got.Errors)
			}
		}
	}
	if log.String() != "" {
		t.Errorf("logged:\n%s", log)
	}
}

// TestSubscription_mergedFields checks that fields with the same response key are one field.
func TestSubscription_mergedFields(t *testing.T) {
	t.Parallel()
	for transport, subscribe := range subscribeFuncs() {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			poster := b.registerAgent(t, "")
			s := subscribe(b, t, caller{}, `subscription { a: taskPosted { cursor } ...F ... { a: taskPosted { occurredAt } } } fragment F on Subscription { a: taskPosted { task { title } } }`)
			b.waitForSubscriptions(t, 1)
			b.postTask(t, poster, "budget: 5")
			events := s.nextN(1)
			events[0].assertFields(t, "a.task.title", "Task")
			if events[0].get(t, "a.cursor") == "" || events[0].get(t, "a.occurredAt") == "" {
				t.Errorf("got %v", events[0].Data)
			}
		})
	}
}

// TestInvalidDocuments_notInternal checks that no document of a stranger is an internal
// error or is logged.
func TestInvalidDocuments_notInternal(t *testing.T) {
	t.Parallel()
	b, log := newLoggedBundle(t)
	agent := b.registerAgent(t, "")
	for _, d := range strangeDocuments() {
		for transport, got := range b.sendEverywhere(t, agent, d) {
			if strings.Contains(got.code(), string(models.Internal)) || log.String() != "" {
				t.Errorf("%s: %s %s: got %v, %v\nlogged %s", transport, d.text, d.variables, got.Data, got.Errors, log)
				log.buffer.Reset()
			}
		}
	}
}

func strangeDocuments() []document {
	task := `mutation($v: String = "x") { postTask(input: {title: $v, description: "D", budget: 2}) { task { id } } }`
	return []document{
		{`query($v: Boolean = true) { tasks @skip(if: $v) { totalCount } }`, `{"v":null}`},
		{`query($v: Boolean = true) { tasks @include(if: $v) { totalCount } }`, `{"v":null}`},
		{`query($v: Boolean = true) { tasks { totalCount @include(if: $v) } }`, `{"v":null}`},
		{`query($v: Boolean = true) { tasks { ... @include(if: $v) { totalCount } } }`, `{"v":null}`},
		{`mutation($v: Boolean = true) { pingWebhook @skip(if: $v) { delivered } }`, `{"v":null}`},
		{`query($v: Boolean!) { tasks @skip(if: $v) { totalCount } }`, `{"v":"true"}`},
		{`query($v: Boolean!) { tasks @skip(if: $v) { totalCount } }`, `{"v":1}`},
		{`query($v: Boolean!) { tasks @skip(if: $v) { totalCount } }`, `{"v":[true]}`},
		{`query($v: Boolean!) { tasks @skip(if: $v) { totalCount } }`, `{"v":{}}`},
		{`query($v: Boolean!) { tasks @skip(if: $v) { totalCount } }`, `{}`},
		{`{ tasks @skip { totalCount } }`, ``},
		{`{ tasks @skip(if: null) { totalCount } }`, ``},
		{`{ tasks @skip(if: "true") { totalCount } }`, ``},
		{`{ tasks @skip(if: [true]) { totalCount } }`, ``},
		{`{ tasks @skip(if: true) @skip(if: true) { totalCount } }`, ``},
		{task, `{"v":null}`},
		{task, `{"v":{}}`},
		{task, `{"v":[]}`},
		{`mutation($v: Credits = 3) { postTask(input: {title: "T", description: "D", budget: $v}) { task { id } } }`, `{"v":null}`},
		{`mutation($v: [String!] = ["a"]) { registerAgent(input: {name: "A", capabilities: $v}) { apiKey } }`, `{"v":null}`},
		{`mutation($v: String = "a") { registerAgent(input: {name: "A", capabilities: [$v]}) { apiKey } }`, `{"v":null}`},
		{`mutation($v: [String!]) { registerAgent(input: {name: "A", capabilities: $v}) { apiKey } }`, `{"v":[null]}`},
		{`query($v: Int = 3) { tasks(first: $v) { totalCount } }`, `{"v":null}`},
		{`query($v: Int) { tasks(first: $v) { nodes { id } } }`, `{"v":99999999999999999999}`},
		{`query($v: Int) { tasks(first: $v) { nodes { id } } }`, `{"v":1e400}`},
		{`query($v: Int) { tasks(first: $v) { nodes { id } } }`, `{"v":{"a":1}}`},
		{`query($v: Int) { tasks(first: $v) { nodes { id } } }`, `{"v":2147483648}`},
		{`{ tasks(first: 99999999999999999999) { nodes { id } } }`, ``},
		{`{ tasks(first: null) { nodes { id } } }`, ``},
		{`{ tasks(filter: null, orderBy: null, after: null) { nodes { id } } }`, ``},
		{`query($v: TaskFilter) { tasks(filter: $v) { totalCount } }`, `{"v":{"status":null,"search":null,"capability":null,"minBudget":null}}`},
		{`query($v: TaskFilter) { tasks(filter: $v) { totalCount } }`, `{"v":{"status":["OPEN",null]}}`},
		{`query($v: TaskStatus = OPEN) { tasks(filter: {status: [$v]}) { totalCount } }`, `{"v":null}`},
		{`query($v: [TaskStatus] = [OPEN]) { tasks(filter: {status: $v}) { totalCount } }`, `{"v":[null]}`},
		{`query($v: ID = "x") { task(id: $v) { id } }`, `{"v":null}`},
		{`query($v: ID!) { task(id: $v) { id } }`, `{"v":1.5}`},
		{`query($v: ID!) { task(id: $v) { id } }`, `{"v":true}`},
		{`query($v: ID!) { task(id: $v) { id } }`, `{"v":{}}`},
		{`query($v: ID!) { task(id: $v) { id } }`, `{"v":["a"]}`},
		{`query($v: ID!) { node(id: $v) { id } }`, `{"v":99999999999999999999}`},
		{`query($v: [ID!]!) { nodes(ids: $v) { id } }`, `{"v":[[]]}`},
		{`query($v: [ID!]!) { nodes(ids: $v) { id } }`, `{"v":[{}]}`},
		{`query($v: [ID!]!) { nodes(ids: $v) { id } }`, `{"v":"a"}`},
		{`query($v: ID = "a") { nodes(ids: [$v]) { id } }`, `{"v":null}`},
		{`query($v: ID) { nodes(ids: [$v]) { id } }`, `{}`},
		{`query($v: String = "Task") { __type(name: $v) { name } }`, `{"v":null}`},
		{`{ __type(name: "Nothing") { name fields { name } } }`, ``},
		{`{ __type(name: "") { name } }`, ``},
		{`{ __schema { description types { specifiedByURL isOneOf inputFields(includeDeprecated: true) { isDeprecated deprecationReason } } directives { isRepeatable args(includeDeprecated: true) { name } } } }`, ``},
		{`query($v: Boolean = true) { __type(name: "Task") { fields(includeDeprecated: $v) { name } } }`, `{"v":null}`},
		{`{ __type(name: "Task") { fields(includeDeprecated: null) { name } enumValues(includeDeprecated: null) { name } inputFields(includeDeprecated: null) { name } } }`, ``},
		{`{ __type(name: "Query") { fields { args(includeDeprecated: null) { name } } } }`, ``},
		{`mutation($v: DateTime!) { redeliverWebhooks(input: {since: $v}) { redeliveredCount } }`, `{"v":7}`},
		{`mutation($v: DateTime!) { redeliverWebhooks(input: {since: $v}) { redeliveredCount } }`, `{"v":"2026-13-01T00:00:00Z"}`},
		{`mutation($v: DateTime!) { redeliverWebhooks(input: {since: $v}) { redeliveredCount } }`, `{"v":"9999999-01-01T00:00:00Z"}`},
		{`mutation($v: DateTime!) { redeliverWebhooks(input: {since: $v}) { redeliveredCount } }`, `{"v":"0000-01-01T00:00:00+23:59"}`},
		{`mutation($v: DateTime!) { redeliverWebhooks(input: {since: $v}) { redeliveredCount } }`, `{"v":[]}`},
		{`mutation($v: DateTime = "2026-01-01T00:00:00Z") { redeliverWebhooks(input: {since: $v}) { redeliveredCount } }`, `{"v":null}`},
		{`mutation { redeliverWebhooks(input: {since: {a: 1}}) { redeliveredCount } }`, ``},
		{`mutation { redeliverWebhooks(input: {since: OPEN}) { redeliveredCount } }`, ``},
		{`mutation { redeliverWebhooks(input: null) { redeliveredCount } }`, ``},
		{`mutation { setWebhook(input: {url: "https://a.example.com", events: [null]}) { secret } }`, ``},
		{`mutation($v: SetWebhookInput!) { setWebhook(input: $v) { secret } }`, `{"v":{"url":null}}`},
		{`mutation($v: SetWebhookInput!) { setWebhook(input: $v) { secret } }`, `{"v":[{"url":"https://a.example.com"}]}`},
		{`mutation($v: SetWebhookInput!) { setWebhook(input: $v) { secret } }`, `{"v":"x"}`},
		{`mutation($v: UpdateAgentInput!) { updateAgent(input: $v) { agent { id } } }`, `{"v":{"name":null,"capabilities":null,"pricePerTask":null}}`},
		{`mutation($v: URL = "https://a.example.com") { setWebhook(input: {url: $v}) { secret } }`, `{"v":null}`},
		{`mutation { executee: execute(input: {agentId: "x", taskDescription: "D", budget: -9223372036854775809}) { result } }`, ``},
		{`query A { __typename } query A { __typename }`, ``},
		{`query A { __typename } query B { __typename }`, ``},
		{`{ __typename } subscription { taskPosted { cursor } }`, ``},
		{`type A { b: Int }`, ``},
		{`extend type Query { b: Int } { __typename }`, ``},
		{`schema { query: Query }`, ``},
		{`fragment F on Task { id }`, ``},
		{`{ ...F } fragment F on Nothing { id }`, ``},
		{`{ ...F } fragment F on TaskFilter { id }`, ``},
		{`{ ... on TaskStatus { id } }`, ``},
		{`{ node(id: "x") { ... on Task { ... on Agent { name } } } }`, ``},
		{`{ __typename @authenticated }`, ``},
		{`{ __typename @cacheControl(scope: PRIVATE) }`, ``},
		{`{ __typename @deprecated }`, ``},
		{`{ __typename @oneOf }`, ``},
		{`query @skip(if: true) { __typename }`, ``},
		{`query($v: Int @skip(if: true)) { tasks(first: $v) { totalCount } }`, ``},
		{`query($v: Nothing) { tasks(first: $v) { totalCount } }`, `{"v":1}`},
		{`query($v: Task) { tasks(first: $v) { totalCount } }`, `{"v":1}`},
		{`query($v: [[Int]]) { tasks(first: $v) { totalCount } }`, `{"v":[[1]]}`},
		{`query($v: Int = "x") { tasks(first: $v) { totalCount } }`, ``},
		{`query($v: Int = $v) { tasks(first: $v) { totalCount } }`, ``},
		{`query($v: TaskFilter = {search: $x}, $x: String) { tasks(filter: $v) { totalCount } }`, `{"x":"a"}`},
		{`query($v: Int, $v: Int) { tasks(first: $v) { totalCount } }`, ``},
		{`{ tasks(first: 1, first: 2) { totalCount } }`, ``},
		{`{ tasks(filter: {search: "a", search: "b"}) { totalCount } }`, ``},
		{`{ tasks(filter: {search: """` + "\u2028" + `"""}) { totalCount } }`, ``},
		{`{ tasks(filter: {search: "\u{1F600}"}) { totalCount } }`, ``},
		{`{ tasks(filter: {search: "\ud83d"}) { totalCount } }`, ``},
		{`{ tasks(filter: {search: "\q"}) { totalCount } }`, ``},
		{`{ tasks(filter: [{search: "a"}]) { totalCount } }`, ``},
		{`{ tasks(orderBy: {}) { totalCount } }`, ``},
		{`{ tasks(orderBy: {field: null, direction: null}) { totalCount } }`, ``},
		{"\ufeff{ __typename }", ``},
		{`{ a: __typename a: tasks { totalCount } }`, ``},
		{`{ tasks { totalCount { x } } }`, ``},
		{`{ __typename { x } }`, ``},
		{`{ __schema { types { fields { type { fields { type { fields { type { fields { type { name } } } } } } } } } } }`, ``},
	}
}

// TestNullVariables checks that null for a variable with a default is rejected where null is
// not allowed, with the name of the variable, and accepted elsewhere.
func TestNullVariables(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	for text, field := range map[string]string{
		`query($v: Boolean = true) { tasks @skip(if: $v) { totalCount } }`:                                                                         "v",
		`query($v: Boolean = true) { ...F } fragment F on Query { tasks { ... @include(if: $v) { totalCount } } }`:                                 "v",
		`query($v: TaskStatus = OPEN) { tasks(filter: {status: [$v]}) { totalCount } }`:                                                            "v",
		`query($v: ID = "x") { task(id: $v) { id } }`:                                                                                              "v",
		`mutation($v: String = "x") { postTask(input: {title: $v, description: "D", budget: 2}) { task { id } } }`:                                 "v",
		`mutation($v: [String!] = ["a"]) { postTask(input: {title: "T", description: "D", budget: 2, requiredCapabilities: $v}) { task { id } } }`: "v",
		`query($v: Int = 3) { viewer { postedTasks(after: null, first: $v) { totalCount } } }`:                                                     "",
		`query($v: String = "x") { tasks(after: $v) { totalCount } }`:                                                                              "",
	} {
		got := b.send(t, agent, "POST", "", document{text, `{"v":null}`}.body(t), "Content-Type", "application/json")
		if field == "" {
			if len(got.Errors) > 0 {
				t.Errorf("%s: got %v", text, got.Errors)
			}
			continue
		}
		assertError(t, text, got, models.InvalidInput, field)
	}
}

// TestInvalidRequests_notInternal checks that no request body of a stranger is an internal
// error or is logged.
func TestInvalidRequests_notInternal(t *testing.T) {
	t.Parallel()
	b, log := newLoggedBundle(t)
	for _, extensions := range []string{
		`null`, `{}`, `{"persistedQuery":null}`, `{"persistedQuery":7}`, `{"persistedQuery":"x"}`, `{"persistedQuery":[]}`, `{"persistedQuery":{}}`,
		`{"persistedQuery":{"version":1}}`, `{"persistedQuery":{"version":1,"sha256Hash":7}}`, `{"persistedQuery":{"version":1,"sha256Hash":null}}`,
		`{"persistedQuery":{"version":"1","sha256Hash":"x"}}`, `{"persistedQuery":{"version":2,"sha256Hash":"x"}}`, `{"persistedQuery":{"version":1e400,"sha256Hash":"x"}}`,
		`{"persistedQuery":{"version":1.5,"sha256Hash":"x"}}`, `{"persistedQuery":{"version":99999999999999999999,"sha256Hash":"x"}}`, `{"persistedQuery":{"version":{},"sha256Hash":{}}}`,
	} {
		for _, query := range []string{`"query":"{ __typename }",`, `"query":"",`, ``, `"operationName":"Other","query":"{ __typename }",`} {
			got := b.send(t, caller{}, "POST", "", []byte(`{`+query+`"extensions":`+extensions+`}`), "Content-Type", "application/json")
			if got.code() == string(models.Internal) || len(got.Errors) > 0 && got.code() == "" || log.String() != "" {
				t.Errorf("%s %s: got %v\nlogged %s", query, extensions, got.Errors, log)
			}
		}
	}
}
