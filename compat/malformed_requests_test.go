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

// TestMalformedRequests sends what strangers might: requests of every kind with bytes
// changed, lost, doubled and put in. No handler panics, none is at a loss for an
// answer, and the books are right afterwards. "make fuzz" goes on from here, by
// what the code was seen to do.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	inputs := trusttest.Scale(500, 20_000, 5_000_000)
	var steps atomic.Int64
	_, d, actors := newDualAPI(t, nil, &steps, 2)
	d.Settings.StartingCredits = 1_000_000_000
	task := d.postTask(t, caller{key: d.keys[actors[0].AgentID]})
	seeds := sampleRequests(task, actors[1].AgentID)
	random, refused := rand.New(rand.NewPCG(uint64(inputs), 2)), 0
	for n := range inputs {
		s := seeds[random.IntN(len(seeds))]
		key := d.keys[actors[random.IntN(2)].AgentID]
		s.query, s.body = corrupt(random, s.query), corrupt(random, s.body)
		handler, path := d.handler, s.path
		if path == "/graphql" {
			handler = d.graphql
		} else if random.IntN(8) == 0 {
			path = "/" + strings.TrimLeft(string(corrupt(random, []byte(path))), "/")
		}
		if random.IntN(8) == 0 {
			key = string(corrupt(random, []byte(key)))
		}
		got := serveRaw(handler, s.method, path, s.query, key, s.body)
		if got.Code >= http.StatusInternalServerError && got.Code != http.StatusBadGateway { // 502: the hired agent's fault
			t.Fatalf("input %d: %s %q?%q %q is answered %d %s", n, s.method, path, s.query, s.body, got.Code, got.Body)
		}
		if bytes.Contains(got.Body.Bytes(), []byte(`"INTERNAL"`)) {
			t.Fatalf("input %d: %s %q?%q %q is answered %s", n, s.method, path, s.query, s.body, got.Body)
		}
		if got.Code != http.StatusOK {
			refused++
		}
	}
	d.VerifyLedger()
	if refused == 0 || refused == inputs {
		t.Errorf("%d of %d were refused: these are no strangers", refused, inputs)
	}
	trusttest.Report(t, "strangers", "%d garbled requests, %d of them refused: no panic, no 5xx, the books right", inputs, refused)
}

// rawRequest is a request before it is garbled.
type rawRequest struct {
	method, path string
	query, body  []byte
}

// sampleRequests has a request for each route and for each kind of document.
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
		path, given, _ := strings.Cut(rest, " ")
		s := rawRequest{method: method, path: path, body: []byte(given)}
		if method == http.MethodGet {
			s.query, s.body = s.body, nil
		}
		all = append(all, s)
	}
	for _, document := range sampleDocuments(task) {
		body, _ := json.Marshal(map[string]any{"query": document, "variables": map[string]any{"a": 2, "b": true}}) //nolint:errchkjson // texts and numbers
		all = append(all, rawRequest{method: http.MethodPost, path: "/graphql", body: body})
	}
	return all
}

// sampleDocuments has one of each kind.
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

// corrupt changes some bytes, and leaves one text in eight as it is.
func corrupt(random *rand.Rand, text []byte) []byte {
	words := []string{
		"\x00", "\xff", `\u0000`, `\ud800`, `"`, "{", "}", "[[", "]", ":", ",", "null", "-1", "1e400", "99999999999999999999", "0x1", "%zz", "&", "'", "../", "\n", "@", "$a", "...F", "😀",
	}
	out := bytes.Clone(text)
	for range random.IntN(8) {
		at := random.IntN(len(out) + 1)
		end := min(len(out), at+random.IntN(9))
		switch random.IntN(5) {
		case 0: // put in
			out = append(out[:at:at], append([]byte(words[random.IntN(len(words))]), out[at:]...)...)
		case 1: // lose
			out = append(out[:at:at], out[end:]...)
		case 2: // double
			out = append(out[:end:end], out[at:]...)
		case 3: // change
			if at < len(out) {
				out[at] ^= 1 << random.IntN(8)
			}
		default: // many of the same
			out = append(out[:at:at], append(bytes.Repeat(out[at:end], 1+random.IntN(40)), out[at:]...)...)
		}
	}
	return out
}

// serveRaw sends a request as it is, however wrong.
func serveRaw(h http.Handler, method, path string, query []byte, key string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", bytes.NewReader(body))
	r.URL.Path, r.URL.RawQuery = path, string(query)
	r.Header["Content-Type"] = []string{"application/json"}
	r.Header["X-Api-Key"] = []string{key}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
