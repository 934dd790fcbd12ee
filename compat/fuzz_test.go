package compat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
	"agentmarket.space/server/models"
)

// verifyInterval is the number of inputs between two verifications of the ledger,
// which take as long as many inputs.
const verifyInterval = 64

// verifyLedger verifies the ledger and reports to tb, not to the test of the bundle.
func (b *bundle) verifyLedger(tb testing.TB) {
	tb.Helper()
	(&markettest.Bundle{T: tb, DB: b.DB}).VerifyLedger()
}

// FuzzBody sends any body to every route that has one. The response is always an
// envelope without a server error, and the ledger is consistent.
func FuzzBody(f *testing.F) {
	b := newBundle(f)
	poster, worker := b.registerAgent(f, "Poster", ""), b.registerAgent(f, "Worker", `,"endpoint_url":"https://worker.example.com/run"`)
	task := b.postTask(f, poster)
	b.mustSend(f, request{method: "POST", path: "/api/tasks/" + task + "/accept", key: worker.key})
	var routes []route
	for _, rt := range (&handler{}).routes() {
		if rt.method != http.MethodGet {
			routes = append(routes, rt)
		}
	}
	for i := range routes {
		for _, body := range []string{
			"", "{}", "null", "[", `{"name":"Bot","capabilities":["a"],"price_per_task":15,"webhook_url":"https://a.example.com/b"}`,
			`{"title":"T","description":"D","budget":2}`, `{"result":"done"}`, `{"score":5,"comment":"\ud800"}`, `{"lease_minutes":1}`,
			`{"agent_id":"` + worker.id + `","task_description":"D","budget":10}`, "{\"name\":\"\xff\"}", `{"budget":1e999}`,
		} {
			f.Add(uint8(i), "application/json", []byte(body))
		}
	}
	inputs := 0
	f.Fuzz(func(t *testing.T, index uint8, contentType string, body []byte) {
		rt := routes[int(index)%len(routes)]
		r := httptest.NewRequest(rt.method, strings.ReplaceAll(rt.path, "{id}", task), strings.NewReader(string(body)))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("X-Api-Key", worker.key)
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		resp := parseEnvelope(t, w.Code, w.Header(), w.Body.Bytes())
		if balance, ok := resp["balance"].(float64); !ok || balance < 0 || w.Code >= 500 {
			t.Errorf("%s: %d %s", rt.name, w.Code, w.Body)
		}
		if inputs++; inputs%verifyInterval == 0 {
			b.verifyLedger(t)
		}
	})
	b.verifyLedger(f)
	trusttest.Report(f, "bodies", "%d bodies to %d routes: always an envelope, ledger consistent", inputs, len(routes))
}

// FuzzDocument sends any document with any variables. The response is JSON without an
// internal error, and the ledger is consistent.
func FuzzDocument(f *testing.F) {
	var steps atomic.Int64
	_, api, actors := newDualAPI(f, nil, &steps, 2)
	task := api.postTask(f, caller{key: api.keys[actors[0].AgentID]})
	for _, document := range sampleDocuments(task) {
		f.Add(document, []byte(`{"a":2,"b":true}`))
	}
	for _, document := range []string{
		"", "{", "query Q { __typename } query R { __typename }", "subscription { taskPosted { cursor } }", "{ ...F } fragment F on Query { ...F }",
		`{ a: viewer { wallet { balance } } b: viewer { wallet { balance } } }`, `mutation { cancelTask(input: {taskId: ""}) { task { id } } a: cancelTask(input: {taskId: "x"}) { task { id } } }`,
	} {
		f.Add(document, []byte(`{"a":null,"b":"no"}`))
	}
	key, inputs := api.keys[actors[1].AgentID], 0
	f.Fuzz(func(t *testing.T, document string, variables []byte) {
		quoted, err := json.Marshal(document)
		testutil.Must(t, err)
		got := serveRequest(api.graphql, http.MethodPost, "/graphql", key, fmt.Sprintf(`{"query":%s,"variables":%s}`, quoted, variables))
		var resp struct {
			Errors []struct{ Extensions struct{ Code models.Code } }
		}
		err = json.Unmarshal(got.Body.Bytes(), &resp)
		for _, gqlErr := range resp.Errors {
			if gqlErr.Extensions.Code == models.Internal {
				err = errorFor(gqlErr.Extensions.Code, "internal error")
			}
		}
		if err != nil || got.Code >= http.StatusInternalServerError {
			t.Errorf("%q with %q: got %d %s (%v)", document, variables, got.Code, got.Body, err)
		}
		if inputs++; inputs%verifyInterval == 0 {
			api.verifyLedger(t)
		}
	})
	api.verifyLedger(f)
	trusttest.Report(f, "documents", "%d documents: always a JSON response, ledger consistent", inputs)
}

// FuzzFilter lists tasks with the same filter over REST and GraphQL. Both return the
// same tasks or the same error. It also sends any query string to the REST lists.
func FuzzFilter(f *testing.F) {
	var steps atomic.Int64
	_, api, actors := newDualAPI(f, nil, &steps, 2)
	poster, worker := caller{key: api.keys[actors[0].AgentID]}, caller{key: api.keys[actors[1].AgentID]}
	api.postTask(f, poster)
	assigned := api.postTask(f, poster)
	api.mustSend(f, request{method: http.MethodPost, path: "/api/tasks/" + assigned + "/accept", key: worker.key})
	for _, query := range []string{"", "limit=1&status=open&status=assigned", "capability=%zz", "limit=&cursor=&capability=", "status=no", "limit=1e3", "cursor=%00", "a;b", "capability=research&capability=x"} {
		f.Add(query, "research", uint8(1), 20, "")
	}
	for _, capability := range []string{"", "RESEARCH", "re%", "_", "'", "\x00", "\xff", " research", strings.Repeat("x", 5000)} {
		for i, limit := range []int{0, 1, -5, 101, 1 << 40} {
			f.Add("", capability, uint8(i), limit, []string{"", "MQ", "no cursor", "\x00", "MDE5"}[i])
		}
	}
	inputs, listed := 0, 0
	f.Fuzz(func(t *testing.T, query, capability string, status uint8, limit int, cursor string) {
		inputs++
		for _, path := range []string{"/api/tasks", "/api/agents"} {
			got := serveRaw(api.handler, http.MethodGet, path, []byte(query), worker.key, nil)
			if parseEnvelope(t, got.Code, got.Header(), got.Body.Bytes()); got.Code >= http.StatusInternalServerError {
				t.Errorf("%s?%q: got %d %s", path, query, got.Code, got.Body)
			}
		}
		if !utf8.ValidString(capability) || !utf8.ValidString(cursor) {
			return // JSON cannot contain invalid UTF-8
		}
		rest, restCode := api.listTasksREST(t, capability, status, limit, cursor)
		graphql, gqlCode := api.listTasksGraphQL(t, capability, status, limit, cursor)
		if restCode != gqlCode || !slices.Equal(rest, graphql) {
			t.Errorf("capability %q, status %d, limit %d, cursor %q: REST returns %v %s, GraphQL %v %s", capability, status, limit, cursor, rest, restCode, graphql, gqlCode)
		}
		listed += len(rest)
	})
	trusttest.Report(f, "filters", "%d filters: both APIs list the same %d tasks or return the same error", inputs, listed)
}

// statusFilter returns a status, or "" for no filter.
func statusFilter(status uint8) models.Status {
	return append(models.Statuses(), "")[int(status)%(len(models.Statuses())+1)]
}

func (api *dualAPI) listTasksREST(t *testing.T, capability string, status uint8, limit int, cursor string) (ids []string, code models.Code) {
	t.Helper()
	query := url.Values{"capability": {capability}, "status": {string(statusFilter(status))}, "limit": {strconv.Itoa(limit)}, "cursor": {cursor}}
	got := serveRaw(api.handler, http.MethodGet, "/api/tasks", []byte(query.Encode()), "", nil)
	var resp struct {
		Code models.Code
		Data []struct{ ID string }
	}
	testutil.Must(t, json.Unmarshal(got.Body.Bytes(), &resp))
	for _, task := range resp.Data {
		ids = append(ids, task.ID)
	}
	return ids, resp.Code
}

func (api *dualAPI) listTasksGraphQL(t *testing.T, capability string, status uint8, limit int, cursor string) (ids []string, code models.Code) {
	t.Helper()
	filter, variables := map[string]any{}, map[string]any{"first": min(max(limit, 1), market.MaxPageSize)}
	if capability != "" {
		filter["capability"] = capability
	}
	if state := statusFilter(status); state != "" {
		filter["status"] = []string{strings.ToUpper(string(state))}
	}
	if variables["filter"] = filter; cursor != "" {
		variables["after"] = cursor
	}
	body, err := json.Marshal(map[string]any{
		"query": `query($first: Int, $after: String, $filter: TaskFilter) { tasks(first: $first, after: $after, filter: $filter) { nodes { id } } }`, "variables": variables,
	})
	testutil.Must(t, err)
	var resp struct {
		Data struct {
			Tasks struct{ Nodes []struct{ ID string } }
		}
		Errors []struct{ Extensions struct{ Code models.Code } }
	}
	testutil.Must(t, json.Unmarshal(serveRequest(api.graphql, http.MethodPost, "/graphql", "", string(body)).Body.Bytes(), &resp))
	for _, task := range resp.Data.Tasks.Nodes {
		ids = append(ids, task.ID)
	}
	if len(resp.Errors) > 0 {
		code = resp.Errors[0].Extensions.Code
	}
	return ids, code
}
