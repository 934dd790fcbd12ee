package app

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/models"
)

const testOperatorKey = "the-operators-key-0123456789abcdef"

// auditEntries are the audit log as the operator reads it.
func (b *testServer) auditEntries(t *testing.T, query string) (entries []models.AuditEntry) {
	t.Helper()
	got := b.do(t, http.MethodGet, "/operator/audit"+query, "", "Authorization", "Bearer "+testOperatorKey)
	var body struct{ Data []models.AuditEntry }
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	return body.Data
}

// TestServiceRoutes_authorization: what a stranger, an agent and the operator are answered everywhere but
// at REST. A place without a row fails.
func TestServiceRoutes_authorization(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.OperatorKey = testOperatorKey })
	keys := []string{"", b.register(t, ""), testOperatorKey}
	rows := map[string]struct {
		path string
		want [3]int
	}{
		"GET /livez":     {"/livez", [3]int{200, 200, 200}},
		"GET /readyz":    {"/readyz", [3]int{200, 200, 200}},
		"GET /metrics":   {"/metrics", [3]int{401, 401, 200}},
		"/operator/":     {"/operator/audit", [3]int{401, 401, 200}},
		"GET /explorer":  {"/explorer", [3]int{200, 200, 200}},
		"GET /explorer/": {"/explorer/", [3]int{200, 200, 200}},
		"/graphql":       {"/graphql?query=%7B__typename%7D", [3]int{200, 200, 401}},
		"/openapi.json":  {"/openapi.json", [3]int{200, 200, 200}},
		"GET /{$}":       {"/", [3]int{200, 200, 200}},
	}
	for pattern := range b.serviceRoutes(&authMiddleware{}, nil, "") {
		if _, ok := rows[pattern]; !ok {
			t.Errorf("say who may %s", pattern)
		}
	}
	for pattern, row := range rows {
		for i, key := range keys {
			headers := []string{"Authorization", "Bearer " + key}
			if got := b.do(t, http.MethodGet, row.path, "", headers[:2*min(len(key), 1)]...); got.StatusCode != row.want[i] {
				t.Errorf("%s: caller %d is answered %d, want %d", pattern, i, got.StatusCode, row.want[i])
			}
		}
	}
}

// TestOperatorAPI: the operator reads the audit log, a page at a time and of one agent,
// and ends an agent's keys. What was tried with other keys is in the log, and no key.
func TestOperatorAPI(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.OperatorKey = testOperatorKey })
	key := b.register(t, "")
	me := b.do(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", key)
	_, rest, _ := strings.Cut(me.body, `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	operator := []string{"X-API-Key", testOperatorKey}
	wrong := strings.Repeat("ab", 32)
	for range 3 {
		b.do(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", wrong)
		b.do(t, http.MethodGet, "/operator/audit", "", "X-API-Key", wrong)
	}
	if err := b.audit.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var seen []string
	all := b.auditEntries(t, "")
	for _, e := range all {
		seen = append(seen, string(e.Action)+" "+e.Outcome)
	}
	want := "audit.read OK, operator.refused UNAUTHENTICATED, key.refused UNAUTHENTICATED, agent.registered OK"
	if got := strings.Join(seen, ", "); got != want || all[1].Count != 3 || all[1].Address != "127.0.0.1" {
		t.Errorf("the log says %s, want %s: %+v", got, want, all)
	}
	if of := b.auditEntries(t, "?actor="+id); len(of) != 1 || of[0].Action != models.AgentRegistered || of[0].RequestID == "" {
		t.Errorf("of the agent it says %+v", of)
	}
	if page := b.auditEntries(t, "?limit=1&before=2"); len(page) != 1 || page[0].Seq != 1 {
		t.Errorf("the first page ends with %+v", page)
	}
	for path, want := range map[string]int{
		"/operator/audit?limit=0": 400, "/operator/audit?limit=1001": 400, "/operator/audit?limit=x": 400, "/operator/audit?before=x": 400,
		"/operator/none": 404, "/operator/": 404,
	} {
		if got := b.do(t, http.MethodGet, path, "", operator...); got.StatusCode != want {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	if got := b.do(t, http.MethodDelete, "/operator/agents/nobody/keys", "", operator...); got.StatusCode != http.StatusNotFound {
		t.Errorf("nobody's keys: %d %s", got.StatusCode, got.body)
	}
	if got := b.do(t, http.MethodDelete, "/operator/agents/"+id+"/keys", "", operator...); got.StatusCode != http.StatusOK {
		t.Errorf("ending keys: %d %s", got.StatusCode, got.body)
	}
	if got := b.do(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", key); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("the key goes on: %d %s", got.StatusCode, got.body)
	}
	if log := b.log.String(); strings.Contains(log, testOperatorKey) || strings.Contains(log, wrong) {
		t.Error("a key is in the log")
	}
}

// TestOperatorAPI_rateLimited keeps who guesses the operator's key to the pace of strangers.
func TestOperatorAPI_rateLimited(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.OperatorKey, c.RateLimits = testOperatorKey, "on" })
	for range 1000 { // 200 at once, and what a second of the test's own time gives back
		got := b.do(t, http.MethodGet, "/operator/audit", "", "X-API-Key", "wrong")
		if got.StatusCode == http.StatusTooManyRequests {
			if got.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			b.auditEntries(t, "") // the operator is not held up
			return
		}
		if got.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
	}
	t.Error("never refused")
}

// TestOperatorAPI_withoutKey a key there is no such door, and with a file it is read.
func TestOperatorAPI_withoutKey(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	for path, want := range map[string]int{"/metrics": 200, "/operator/audit": 404} {
		if got := b.do(t, http.MethodGet, path, "", "X-API-Key", ""); got.StatusCode != want {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	file := filepath.Join(t.TempDir(), "operator.key")
	for text, want := range map[string]string{testOperatorKey + "\n": testOperatorKey, "short": "", "": ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readOperatorKey(config.Config{OperatorKeyFile: file}); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is read as %q (%v)", text, got, err)
		}
	}
	c := testConfig(t)
	c.OperatorKeyFile = filepath.Join(t.TempDir(), "none")
	if _, err := New(t.Context(), c, "test", slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "operator-key-file: ") {
		t.Errorf("a file that is not there: %v", err)
	}
}
