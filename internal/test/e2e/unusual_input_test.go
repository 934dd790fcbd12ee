package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// TestFilters_specialCharacters: filters treat wildcards, quotes and SQL as plain text. No match is an empty
// list.
func TestFilters_specialCharacters(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", map[string]any{"capabilities": []string{"plain"}})
	odd := server.Register(`100%_'; DROP TABLE agents; --\`, map[string]any{"capabilities": []string{"50%_off"}})
	server.PostTask(odd.Key, "50%_off")
	for capability, found := range map[string]int{
		"50%_off": 1, "50%_OFF": 1, "50%": 0, "%": 0, "_______": 0, "plai_": 0, "50%_off' OR '1'='1": 0, `";--`: 0, `\`: 0, strings.Repeat("a", 51): 0,
	} {
		for _, list := range []string{"agents", "tasks"} {
			status, text := server.Do(http.MethodGet, "/api/"+list+"?capability="+url.QueryEscape(capability), "", "")
			var rest struct{ Data []any }
			if err := json.Unmarshal([]byte(text), &rest); err != nil || rest.Data == nil || status != http.StatusOK || len(rest.Data) != found {
				t.Errorf("%s of %s over REST: %d, %d found, want %d", list, capability, status, len(rest.Data), found)
			}
			if n := countMatches(t, server, list, "capability", capability); n != found {
				t.Errorf("%s of %s over GraphQL: %d found, want %d", list, capability, n, found)
			}
		}
	}
	for text, found := range map[string]int{"agen": 2, "100%_'; drop": 1, "10_": 1, "gent": 0, "%": 0, "_": 0, `\`: 0, "' OR 1=1": 0, "A%t": 0, "Ag__t": 0} {
		if n := countMatches(t, server, "agents", "search", text); n != found {
			t.Errorf("agents with %s: %d found, want %d", text, n, found)
		}
	}
	for text, found := range map[string]int{"paper": 1, "%": 0, "_": 0, "S%e": 0, "Full text.._": 1, "'": 0} {
		if n := countMatches(t, server, "tasks", "search", text); n != found {
			t.Errorf("tasks with %s: %d found, want %d", text, n, found)
		}
	}
	for _, limit := range []string{"0", "-5", "1", "1000000", "99999999999999999999", "-99999999999999999999"} { // clamped to the page size
		if status, text := server.Do(http.MethodGet, "/api/agents?limit="+limit, "", ""); status != http.StatusOK || !strings.Contains(text, `"name":"100%_`) {
			t.Errorf("limit %s: %d %s", limit, status, text)
		}
	}
	server.Verify()
}

// countMatches returns the number of agents or tasks that match a filter over GraphQL.
func countMatches(t *testing.T, server *testserver.Server, list, filter, value string) int {
	t.Helper()
	var data map[string]struct{ TotalCount int }
	document := fmt.Sprintf(`query($value: String) { %s(filter: {%s: $value}) { totalCount } }`, list, filter)
	if err := server.Query("", document, map[string]any{"value": value}, &data); err != nil {
		t.Fatal(err)
	}
	return data[list].TotalCount
}

// TestUnusualJSON: REST and GraphQL read unusual but valid JSON in the same way.
func TestUnusualJSON(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	const mutation = `{"query":"mutation($input: RegisterAgentInput!) { registerAgent(input: $input) { agent { name } } }","variables":{"input":%s}}`
	for _, row := range []struct{ input, name string }{
		{`{"name":7,"name":"The last one counts"}`, "The last one counts"},
		{`{"name":"Whole","pricePerTask":2.0}`, "Whole"},
		{`{"name":"A pair: \ud83d\ude00"}`, "A pair: 😀"},
	} {
		for path, body := range map[string]string{"/api/agents/register": row.input, "/graphql": fmt.Sprintf(mutation, row.input)} {
			status, text := server.Do(http.MethodPost, path, "", body)
			if want := fmt.Sprintf(`"name":"%s"`, row.name); status != http.StatusOK || !strings.Contains(text, want) {
				t.Errorf("%s %s: %d %s, want %s", path, row.input, status, text, want)
			}
		}
	}
	const unknown = `{"name":"Unknown fields do no harm","balance":1e400,"nobody":[[{}]]}`
	if status, text := server.Do(http.MethodPost, "/api/agents/register", "", unknown); status != http.StatusOK || !strings.HasSuffix(text, `"balance":100}`) {
		t.Errorf("%s: %d %s", unknown, status, text)
	}
	server.Verify()
}
