package compat

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/trust/trusttest"
)

// TestMalformedRequests sends randomly corrupted requests. No handler panics, no
// response is an internal error, and the ledger is consistent afterwards. "make fuzz"
// continues with inputs guided by coverage.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	inputs := trusttest.Scale(500, 20_000, 5_000_000)
	var steps atomic.Int64
	_, api, actors := newDualAPI(t, nil, &steps, 2)
	api.Settings.StartingCredits = 1_000_000_000
	task := api.postTask(t, caller{key: api.keys[actors[0].AgentID]})
	seeds := sampleRequests(task, actors[1].AgentID)
	rng, rejected := rand.New(rand.NewPCG(uint64(inputs), 2)), 0
	for n := range inputs {
		req := seeds[rng.IntN(len(seeds))]
		key := api.keys[actors[rng.IntN(2)].AgentID]
		req.query, req.body = corrupt(rng, req.query), corrupt(rng, req.body)
		handler, path := api.handler, req.path
		if path == "/graphql" {
			handler = api.graphql
		} else if rng.IntN(8) == 0 {
			path = "/" + strings.TrimLeft(string(corrupt(rng, []byte(path))), "/")
		}
		if rng.IntN(8) == 0 {
			key = string(corrupt(rng, []byte(key)))
		}
		got := serveRaw(handler, req.method, path, req.query, key, req.body)
		if got.Code >= http.StatusInternalServerError && got.Code != http.StatusBadGateway { // 502: the hired agent failed
			t.Fatalf("input %d: %s %q?%q %q got %d %s", n, req.method, path, req.query, req.body, got.Code, got.Body)
		}
		if bytes.Contains(got.Body.Bytes(), []byte(`"INTERNAL"`)) {
			t.Fatalf("input %d: %s %q?%q %q got %s", n, req.method, path, req.query, req.body, got.Body)
		}
		if got.Code != http.StatusOK {
			rejected++
		}
	}
	api.VerifyLedger()
	if rejected == 0 || rejected == inputs {
		t.Errorf("%d of %d requests were rejected, want some but not all", rejected, inputs)
	}
	trusttest.Report(t, "strangers", "%d corrupted requests, %d rejected: no panic, no 5xx, ledger consistent", inputs, rejected)
}

// rawRequest is a request to corrupt.
type rawRequest struct {
	method, path string
	query, body  []byte
}

// sampleRequests returns a request for each route and for each sample document.
func sampleRequests(task, agent string) (all []rawRequest) {
	for _, line := range []string{
		`POST /api/agents/register {"name":"A","description":"D","capabilities":["a","b"],"price_per_task":10,"webhook_url":"https://a.example.com/x","owner_email":"a@example.com"}`,
		`GET /api/agents capability=research&limit=5&cursor=MTIz`,
		`GET /api/agents/` + agent, `GET /api/agents/me`, `GET /api/wallet`, `GET /api/agents/me/webhook`,
		`POST /api/tasks {"title":"T","description":"D","budget":2,"required_capabilities":["a"],"open_for_minutes":60,"lease_minutes":10}`,
		`GET /api/tasks status=open&status=completed&capability=a&limit=10&cursor=abc`,
		`GET /api/tasks/` + task,
		`POST /api/tasks/` + task + `/accept {}`, `POST /api/tasks/` + task + `/complete {"result":"Done."}`, `POST /api/tasks/` + task + `/cancel {}`,
		`POST /api/tasks/` + task + `/release {}`, `POST /api/tasks/` + task + `/extend {"lease_minutes":5}`, `POST /api/tasks/` + task + `/rate {"score":5,"comment":"Good."}`,
		`POST /api/execute {"agent_id":"` + agent + `","task_description":"D","budget":10}`,
		`PUT /api/agents/me/webhook {"webhook_url":"https://b.example.com:443/hook?x=1#y"}`, `DELETE /api/agents/me/webhook {}`,
	} {
		method, rest, _ := strings.Cut(line, " ")
		path, args, _ := strings.Cut(rest, " ")
		req := rawRequest{method: method, path: path, body: []byte(args)}
		if method == http.MethodGet {
			req.query, req.body = req.body, nil
		}
		all = append(all, req)
	}
	for _, document := range sampleDocuments(task) {
		body, _ := json.Marshal(map[string]any{"query": document, "variables": map[string]any{"a": 2, "b": true}}) //nolint:errchkjson // strings and numbers
		all = append(all, rawRequest{method: http.MethodPost, path: "/graphql", body: body})
	}
	return all
}

// sampleDocuments returns one document of each kind.
func sampleDocuments(task string) []string {
	return []string{
		`{ viewer { agent { id } wallet { balance heldBalance entries(first: 3) { nodes { amount } } } } }`,
		`query Q { tasks(first: 5, filter: {status: [OPEN], capability: "a", minBudget: 2, search: "T"}, orderBy: null) { totalCount nodes { id poster { name } } } }`,
		`{ node(id: "` + task + `") { id ... on Task { title } } agents(filter: {capability: "b"}) { nodes { ...F } } } fragment F on Agent { id name }`,
		`mutation { postTask(input: {title: "T", description: """D""", budget: 3, requiredCapabilities: ["x"]}) { task { id } wallet { balance } } }`,
		`mutation { acceptTask(input: {taskId: "` + task + `"}) { task { id status } } }`,
		`mutation { completeTask(input: {taskId: "` + task + `", result: "R"}) { task { result } } }`,
		`mutation { registerAgent(input: {name: "A", webhookUrl: "https://c.example.com/h"}) { agent { id } apiKey } }`,
		`mutation { setWebhook(input: {url: "https://d.example.com"}) { webhook { status } } }`,
		`query($a: Int = 3, $b: Boolean!) { tasks(first: $a) @include(if: $b) { nodes { id } } __schema { queryType { name } } }`,
	}
}

// corrupt changes some bytes. One text in eight stays the same.
func corrupt(rng *rand.Rand, text []byte) []byte {
	tokens := []string{
		"\x00", "\xff", `\u0000`, `\ud800`, `"`, "{", "}", "[[", "]", ":", ",", "null", "-1", "1e400", "99999999999999999999", "0x1", "%zz", "&", "'", "../", "\n", "@", "$a", "...F", "😀",
	}
	out := bytes.Clone(text)
	for range rng.IntN(8) {
		at := rng.IntN(len(out) + 1)
		end := min(len(out), at+rng.IntN(9))
		switch rng.IntN(5) {
		case 0: // insert
			out = append(out[:at:at], append([]byte(tokens[rng.IntN(len(tokens))]), out[at:]...)...)
		case 1: // delete
			out = append(out[:at:at], out[end:]...)
		case 2: // duplicate
			out = append(out[:end:end], out[at:]...)
		case 3: // flip a bit
			if at < len(out) {
				out[at] ^= 1 << rng.IntN(8)
			}
		default: // repeat
			out = append(out[:at:at], append(bytes.Repeat(out[at:end], 1+rng.IntN(40)), out[at:]...)...)
		}
	}
	return out
}

// serveRaw sends a request without validating or encoding it.
func serveRaw(h http.Handler, method, path string, query []byte, key string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", bytes.NewReader(body))
	r.URL.Path, r.URL.RawQuery = path, string(query)
	r.Header["Content-Type"] = []string{"application/json"}
	r.Header["X-Api-Key"] = []string{key}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
