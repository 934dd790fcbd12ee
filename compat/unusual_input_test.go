package compat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

// TestIDs_anyCase checks that an id in capitals is the same id on every route, and that
// responses have it in lower case.
func TestIDs_anyCase(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", "")
	task, cancelled := b.postTask(t, poster), b.postTask(t, poster)
	upper := strings.ToUpper
	for _, row := range []struct{ method, path, key, body, id string }{
		{"GET", "/api/agents/" + upper(worker.id), "", "", worker.id},
		{"GET", "/api/tasks/" + upper(task), "", "", task},
		{"POST", "/api/tasks/" + upper(task) + "/accept", worker.key, "", task},
		{"POST", "/api/tasks/" + upper(task) + "/extend", worker.key, "", task},
		{"POST", "/api/tasks/" + upper(task) + "/release", worker.key, "", task},
		{"POST", "/api/tasks/" + task[:20] + upper(task[20:]) + "/accept", worker.key, "", task},
		{"POST", "/api/tasks/" + upper(task) + "/complete", worker.key, `{"result":"R"}`, task},
		{"POST", "/api/tasks/" + upper(task) + "/rate", poster.key, `{"score":5}`, task},
		{"POST", "/api/tasks/" + upper(cancelled) + "/cancel", poster.key, "", cancelled},
	} {
		got := b.mustSend(t, request{method: row.method, path: row.path, key: row.key, body: row.body})
		testutil.Equal(t, row.method+" "+row.path, stringField(t, got, "id"), row.id)
	}
	hire := func(id string) apiResponse {
		return b.send(t, request{method: "POST", path: "/api/execute", key: poster.key, body: fmt.Sprintf(`{"agent_id":%q,"task_description":"D","budget":10}`, id)})
	}
	testutil.Equal(t, "hire by an id in capitals", string(hire(upper(worker.id)).raw), string(hire(worker.id).raw))
	for _, other := range []string{"%7B" + task + "%7D", "urn:uuid:" + task, strings.ReplaceAll(task, "-", ""), "%20" + task} { // not the usual form
		got := b.send(t, request{method: "GET", path: "/api/tasks/" + other})
		testutil.Equal(t, other, got.StatusCode, http.StatusNotFound)
	}
}

// TestWholeNumbers checks that every spelling of a whole number is accepted, and that an
// error shows a wrong number as it was sent.
func TestWholeNumbers(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "Agent", `,"price_per_task":1.5e1`)
	post := func(fields string) apiResponse {
		return b.send(t, request{method: "POST", path: "/api/tasks", key: agent.key, body: `{"title":"T","description":"D",` + fields + `}`})
	}
	for _, number := range []string{"2", "2.0", "2e0", "20e-1", "0.2E+1", "2.000"} {
		got := post(`"budget":` + number + `,"lease_minutes":` + number + `,"open_for_minutes":` + number)
		if got.StatusCode != http.StatusOK || !strings.Contains(string(got.raw), `"budget":2,`) {
			t.Errorf("%s: %s", number, got.raw)
		}
	}
	for number, shown := range map[string]string{
		"2.5": "must be a whole number, not 2.5", `"2"`: `must be a whole number, not "2"`, "true": "must be a whole number, not true", "[2]": "must be a whole number, not an array",
		"1e400": "must be a whole number of at most 64 bits, not 1e400", "1e-400": "must be a whole number, not 1e-400",
		"1e999999999999":             "must be a whole number of at most 64 bits, not 1e999999999999",
		strings.Repeat("9", 500_000): "must be a whole number of at most 64 bits, not " + strings.Repeat("9", 40) + "...",
	} {
		for field, fields := range map[string]string{"budget": `"budget":%s`, "lease_minutes": `"budget":2,"lease_minutes":%s`} {
			got := post(fmt.Sprintf(fields, number))
			if got.StatusCode != http.StatusBadRequest || got.body["error"] != field+" "+shown {
				t.Errorf("%.30s: %d %.200s, want %q", number, got.StatusCode, got.raw, field+" "+shown)
			}
		}
	}
	for limit, shown := range map[string]string{"2.5": `limit must be a whole number, not "2.5"`, "2e0": `limit must be a whole number, not "2e0"`} {
		testutil.Equal(t, limit, fmt.Sprint(b.send(t, request{method: "GET", path: "/api/tasks?limit=" + limit}).body["error"]), shown)
	}
}

// TestText_unchanged checks that text is stored and returned as it was sent, or rejected
// with the name of its field.
func TestText_unchanged(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "Agent", "")
	for _, text := range []string{
		"a\u0001\u0002\b\f\n\r\t\u000b\u001b[31m\u001f\u007f\u0085z", "\ufeffa mark\ufeff", "\u2028\u2029\u200d\u202e", "\ufffd\uffff\ufffe\U0010ffff", "e\u0301 é 😀", "<>&'\"\\/", "\r\nx", " both ends ",
	} {
		encoded, err := json.Marshal(text)
		testutil.Must(t, err)
		posted := b.mustSend(t, request{method: "POST", path: "/api/tasks", key: agent.key, body: `{"title":"T","description":` + string(encoded) + `,"budget":2}`})
		read := b.mustSend(t, request{method: "GET", path: "/api/tasks/" + stringField(t, posted, "id")})
		testutil.Equal(t, "posted", posted["description"], any(text))
		testutil.Equal(t, "read", read["description"], any(text))
	}
	for body, message := range map[string]string{
		`{"title":"cut \ud83d","description":"d","budget":2}`:                                `title must not have half of a surrogate pair, such as \ud83d`,
		`{"title":"t","description":"\ude00\ud83d","budget":2}`:                              `description must not have half of a surrogate pair, such as \ud83d`,
		`{"title":"t","description":"d","budget":2,"required_capabilities":["a","b\uDBFF"]}`: `required_capabilities must not have half of a surrogate pair, such as \ud83d`,
		`{"title":"t","description":"d","budget":2,"unknown":{"x":"\ud83d"}}`:                `x must not have half of a surrogate pair, such as \ud83d`,
		`{"title":"t","description":"d","budget":2,"\ud83d":1}`:                              `the request must not have half of a surrogate pair, such as \ud83d`,
		`{"title":"t","description":"a\u0000b","budget":2}`:                                  `description must not have NUL characters`,
		"{\"title\":\"t\",\"description\":\"\xed\xa0\xbd\",\"budget\":2}":                    `the body must be valid UTF-8`, // the half itself, not its escape
		"\ufeff\ufeff" + `{"title":"t","description":"d","budget":2}`:                        `the body is not valid JSON`,
	} {
		got := b.send(t, request{method: "POST", path: "/api/tasks", key: agent.key, body: body})
		if got.StatusCode != http.StatusBadRequest || got.body["error"] != message || got.body["code"] != "INVALID_INPUT" {
			t.Errorf("%s: %d %s, want %q", body, got.StatusCode, got.raw, message)
		}
	}
	for _, body := range []string{"\ufeff" + `{"title":"t \ud83d\ude00","description":"d","budget":2}`, "\ufeff \n" + `{"title":"t 😀","description":"d","budget":2}`} {
		testutil.Equal(t, body, b.mustSend(t, request{method: "POST", path: "/api/tasks", key: agent.key, body: body})["title"], any("t 😀"))
	}
	if got := b.send(t, request{method: "DELETE", path: "/api/agents/me/webhook", key: agent.key, body: "\ufeff"}); got.StatusCode != http.StatusOK {
		t.Errorf("a byte order mark alone is an empty body: %s", got.raw)
	}
	for query, field := range map[string]string{"capability=%ff": "capability", "capability=a%00": "capability", "cursor=%ff": "cursor", "status=%ff": "status", "limit=%ff": "limit", "capability=%ed%a0%bd": "capability", "capability=%zz": "the query string"} {
		got := b.send(t, request{method: "GET", path: "/api/tasks?" + query})
		if message, _ := got.body["error"].(string); got.StatusCode != http.StatusBadRequest || !strings.HasPrefix(message, field+" ") {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.raw)
		}
	}
}
