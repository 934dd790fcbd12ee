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

const operatorsKey = "the-operators-key-0123456789abcdef"

// entries are the audit log as the operator reads it.
func (b *bundle) entries(t *testing.T, query string) (entries []models.AuditEntry) {
	t.Helper()
	got := b.ask(t, http.MethodGet, "/operator/audit"+query, "", "Authorization", "Bearer "+operatorsKey)
	var body struct{ Data []models.AuditEntry }
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	return body.Data
}

// TestPlaces: what a stranger, an agent and the operator are answered everywhere but
// at REST. A place without a row fails.
func TestPlaces(t *testing.T) {
	t.Parallel()
	b := open(t, func(c *config.Config) { c.OperatorKey = operatorsKey })
	keys := []string{"", b.register(t, ""), operatorsKey}
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
	for pattern := range b.places(&door{}, nil, "") {
		if _, ok := rows[pattern]; !ok {
			t.Errorf("say who may %s", pattern)
		}
	}
	for pattern, row := range rows {
		for i, key := range keys {
			headers := []string{"Authorization", "Bearer " + key}
			if got := b.ask(t, http.MethodGet, row.path, "", headers[:2*min(len(key), 1)]...); got.StatusCode != row.want[i] {
				t.Errorf("%s: caller %d is answered %d, want %d", pattern, i, got.StatusCode, row.want[i])
			}
		}
	}
}

// TestOperator: the operator reads the audit log, a page at a time and of one agent,
// and ends an agent's keys. What was tried with other keys is in the log, and no key.
func TestOperator(t *testing.T) {
	t.Parallel()
	b := open(t, func(c *config.Config) { c.OperatorKey = operatorsKey })
	key := b.register(t, "")
	me := b.ask(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", key)
	_, rest, _ := strings.Cut(me.body, `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	operator := []string{"X-API-Key", operatorsKey}
	wrong := strings.Repeat("ab", 32)
	for range 3 {
		b.ask(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", wrong)
		b.ask(t, http.MethodGet, "/operator/audit", "", "X-API-Key", wrong)
	}
	if err := b.market.WriteRefusals(t.Context()); err != nil {
		t.Fatal(err)
	}
	var seen []string
	all := b.entries(t, "")
	for _, e := range all {
		seen = append(seen, string(e.Action)+" "+e.Outcome)
	}
	want := "audit.read OK, operator.refused UNAUTHENTICATED, key.refused UNAUTHENTICATED, agent.registered OK"
	if got := strings.Join(seen, ", "); got != want || all[1].Times != 3 || all[1].Address != "127.0.0.1" {
		t.Errorf("the log says %s, want %s: %+v", got, want, all)
	}
	if of := b.entries(t, "?actor="+id); len(of) != 1 || of[0].Action != models.AgentRegistered || of[0].RequestID == "" {
		t.Errorf("of the agent it says %+v", of)
	}
	if page := b.entries(t, "?limit=1&before=2"); len(page) != 1 || page[0].Seq != 1 {
		t.Errorf("the first page ends with %+v", page)
	}
	for path, want := range map[string]int{
		"/operator/audit?limit=0": 400, "/operator/audit?limit=1001": 400, "/operator/audit?limit=x": 400, "/operator/audit?before=x": 400,
		"/operator/none": 404, "/operator/": 404,
	} {
		if got := b.ask(t, http.MethodGet, path, "", operator...); got.StatusCode != want {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	if got := b.ask(t, http.MethodDelete, "/operator/agents/nobody/keys", "", operator...); got.StatusCode != http.StatusNotFound {
		t.Errorf("nobody's keys: %d %s", got.StatusCode, got.body)
	}
	if got := b.ask(t, http.MethodDelete, "/operator/agents/"+id+"/keys", "", operator...); got.StatusCode != http.StatusOK {
		t.Errorf("ending keys: %d %s", got.StatusCode, got.body)
	}
	if got := b.ask(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", key); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("the key goes on: %d %s", got.StatusCode, got.body)
	}
	if log := b.log.String(); strings.Contains(log, operatorsKey) || strings.Contains(log, wrong) {
		t.Error("a key is in the log")
	}
}

// TestOperator_paced keeps who guesses the operator's key to the pace of strangers.
func TestOperator_paced(t *testing.T) {
	t.Parallel()
	b := open(t, func(c *config.Config) { c.OperatorKey, c.RateLimits = operatorsKey, "on" })
	for range 1000 { // 200 at once, and what a second of the test's own time gives back
		got := b.ask(t, http.MethodGet, "/operator/audit", "", "X-API-Key", "wrong")
		if got.StatusCode == http.StatusTooManyRequests {
			if got.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			b.entries(t, "") // the operator is not held up
			return
		}
		if got.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
	}
	t.Error("never refused")
}

// TestOperator_without a key there is no such door, and with a file it is read.
func TestOperator_without(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	for path, want := range map[string]int{"/metrics": 200, "/operator/audit": 404} {
		if got := b.ask(t, http.MethodGet, path, "", "X-API-Key", ""); got.StatusCode != want {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	file := filepath.Join(t.TempDir(), "operator.key")
	for text, want := range map[string]string{operatorsKey + "\n": operatorsKey, "short": "", "": ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := operatorKey(config.Config{OperatorFile: file}); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is read as %q (%v)", text, got, err)
		}
	}
	c := settings(t)
	c.OperatorFile = filepath.Join(t.TempDir(), "none")
	if _, err := New(t.Context(), c, "test", slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "operator-key-file: ") {
		t.Errorf("a file that is not there: %v", err)
	}
}
