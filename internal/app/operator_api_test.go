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
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

const testOperatorKey = "the-operators-key-0123456789abcdef"

// auditEntries reads the audit log with the operator key.
func (b *testServer) auditEntries(t *testing.T, query string) (entries []models.AuditEntry) {
	t.Helper()
	got := b.do(t, http.MethodGet, "/operator/audit"+query, "", "Authorization", "Bearer "+testOperatorKey)
	var body struct{ Data []models.AuditEntry }
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	return body.Data
}

// TestServiceRoutes_authorization checks the status of each route except REST for an
// anonymous caller, an agent and the operator. A route without a row fails.
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
		"/operator":      {"/operator", [3]int{401, 401, 404}},
		"/operator/":     {"/operator/audit", [3]int{401, 401, 200}},
		"GET /explorer":  {"/explorer", [3]int{200, 200, 200}},
		"GET /explorer/": {"/explorer/", [3]int{200, 200, 200}},
		"/graphql":       {"/graphql?query=%7B__typename%7D", [3]int{200, 200, 401}},
		"/graphql/":      {"/graphql/x", [3]int{404, 404, 401}},
		"/openapi.json":  {"/openapi.json", [3]int{200, 200, 200}},
		"GET /{$}":       {"/", [3]int{200, 200, 200}},
	}
	for pattern := range b.serviceRoutes(&authMiddleware{}, nil, "") {
		if _, ok := rows[pattern]; !ok {
			t.Errorf("no expectation for %s", pattern)
		}
	}
	for pattern, row := range rows {
		for i, key := range keys {
			headers := []string{"Authorization", "Bearer " + key}
			if got := b.do(t, http.MethodGet, row.path, "", headers[:2*min(len(key), 1)]...); got.StatusCode != row.want[i] {
				t.Errorf("%s: caller %d got %d, want %d", pattern, i, got.StatusCode, row.want[i])
			}
		}
	}
}

// TestOperatorAPI checks that the operator can page through the audit log, filter it by
// agent, and revoke the keys of an agent. Rejected requests are in the audit log. Keys
// are not in the server log.
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
	var actions []string
	all := b.auditEntries(t, "")
	for _, e := range all {
		actions = append(actions, string(e.Action)+" "+e.Outcome)
	}
	want := "audit.read OK, operator.refused UNAUTHENTICATED, key.refused UNAUTHENTICATED, agent.registered OK"
	if got := strings.Join(actions, ", "); got != want || all[1].Count != 3 || all[1].Address != "127.0.0.1" {
		t.Errorf("got audit log %s, want %s: %+v", got, want, all)
	}
	if forActor := b.auditEntries(t, "?actor="+id); len(forActor) != 1 || forActor[0].Action != models.AuditAgentRegistered || forActor[0].RequestID == "" {
		t.Errorf("got entries of the agent %+v", forActor)
	}
	if page := b.auditEntries(t, "?limit=1&before=2"); len(page) != 1 || page[0].Seq != 1 {
		t.Errorf("got last page %+v", page)
	}
	for path, want := range map[string]int{
		"/operator/audit?limit=0": 400, "/operator/audit?limit=1001": 400, "/operator/audit?limit=x": 400, "/operator/audit?before=x": 400,
		"/operator/none": 404, "/operator/": 404,
	} {
		if got := b.do(t, http.MethodGet, path, "", operator...); got.StatusCode != want {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	if got := b.do(t, http.MethodDelete, "/operator/agents/unknown/keys", "", operator...); got.StatusCode != http.StatusNotFound {
		t.Errorf("revoke keys of an unknown agent: %d %s", got.StatusCode, got.body)
	}
	if got := b.do(t, http.MethodDelete, "/operator/agents/"+id+"/keys", "", operator...); got.StatusCode != http.StatusOK {
		t.Errorf("revoke keys: %d %s", got.StatusCode, got.body)
	}
	if got := b.do(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", key); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("revoked key: %d %s", got.StatusCode, got.body)
	}
	if log := b.log.String(); strings.Contains(log, testOperatorKey) || strings.Contains(log, wrong) {
		t.Error("the log contains a key")
	}
}

// TestOperatorAPI_rateLimited checks that attempts with a wrong operator key are rate
// limited, and requests with the right key are not.
func TestOperatorAPI_rateLimited(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.OperatorKey, c.RateLimits = testOperatorKey, "on" })
	for range 1000 { // a burst of 200, plus the refill during the test
		got := b.do(t, http.MethodGet, "/operator/audit", "", "X-API-Key", "wrong")
		if got.StatusCode == http.StatusTooManyRequests {
			if got.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			b.auditEntries(t, "") // the operator is not limited
			return
		}
		if got.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
	}
	t.Error("no request was rate limited")
}

// TestOperatorAPI_withoutKey checks that /operator is disabled without a key, and that
// the key can be read from a file.
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
			t.Errorf("file with %q: got key %q (%v)", text, got, err)
		}
	}
	c := testConfig(t)
	c.OperatorKeyFile = filepath.Join(t.TempDir(), "none")
	if _, err := New(t.Context(), c, "test", slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "operator-key-file: ") {
		t.Errorf("missing file: %v", err)
	}
}

// TestOperatorAPI_ids: an agent's id in capitals is the same id. A parameter that cannot be
// decoded is rejected, not left out.
func TestOperatorAPI_ids(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.OperatorKey = testOperatorKey })
	key := b.register(t, "")
	var me struct{ Data struct{ ID string } }
	testutil.Must(t, json.Unmarshal([]byte(b.do(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", key).body), &me))
	id := strings.ToUpper(me.Data.ID)
	if entries := b.auditEntries(t, "?actor="+id); len(entries) != 1 || entries[0].Action != models.AuditAgentRegistered || entries[0].Actor != me.Data.ID {
		t.Errorf("got %+v, want the registration", entries)
	}
	operator := []string{"Authorization", "Bearer " + testOperatorKey}
	if got := b.do(t, http.MethodDelete, "/operator/agents/"+id+"/keys", "", operator...); got.StatusCode != http.StatusOK {
		t.Errorf("revoke: %d %s", got.StatusCode, got.body)
	}
	if got := b.do(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", key); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("the key is still valid: %d", got.StatusCode)
	}
	for _, query := range []string{"?actor=%zz", "?actor=%00", "?actor=%ff", "?limit=2.5", "?before=x"} {
		if got := b.do(t, http.MethodGet, "/operator/audit"+query, "", operator...); got.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.body)
		}
	}
}
