package app

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/config"
)

// TestTrustedDocuments checks that GraphQL accepts only documents of the configured
// file, that REST is not affected, and that the server does not start with an invalid
// file.
func TestTrustedDocuments(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "documents.json")
	write := func(manifest string) {
		if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"list": "{ tasks { totalCount } }"}`)
	b := newTestServer(t, func(c *config.Config) { c.TrustedDocuments = path })
	for _, row := range []struct{ method, path, body, want string }{
		{http.MethodPost, "/graphql", `{"documentId": "list"}`, `"totalCount":0`},
		{http.MethodPost, "/graphql", `{"query": "{ agents { totalCount } }"}`, "QUERY_NOT_IN_SAFELIST"},
		{http.MethodGet, "/api/agents", "", `"data":[]`},
	} {
		if got := b.do(t, row.method, row.path, row.body).body; !strings.Contains(got, row.want) {
			t.Errorf("%s %s: %s", row.path, row.body, got)
		}
	}
	write(`{"list": `)
	c := testConfig(t)
	c.TrustedDocuments = path
	if _, err := New(t.Context(), c, "test", slog.New(slog.DiscardHandler)); err == nil ||
		!strings.HasPrefix(err.Error(), "trusted-documents: "+path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("malformed file: got %v", err)
	}
}
