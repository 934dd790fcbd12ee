package app

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/config"
)

// TestTrustedDocuments: the list that the settings name is the one that GraphQL goes by;
// REST knows no documents. One that is no list keeps the server from starting.
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
	for _, row := range []struct{ method, path, body, says string }{
		{http.MethodPost, "/graphql", `{"documentId": "list"}`, `"totalCount":0`},
		{http.MethodPost, "/graphql", `{"query": "{ agents { totalCount } }"}`, "QUERY_NOT_IN_SAFELIST"},
		{http.MethodGet, "/api/agents", "", `"data":[]`},
	} {
		request, err := http.NewRequestWithContext(t.Context(), row.method, b.url+row.path, strings.NewReader(row.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if got := fetchBody(t, request); !strings.Contains(got, row.says) {
			t.Errorf("%s %s: %s", row.path, row.body, got)
		}
	}
	write(`{"list": `)
	c := testConfig(t)
	c.TrustedDocuments = path
	if _, err := New(t.Context(), c, "test", slog.New(slog.DiscardHandler)); err == nil ||
		!strings.HasPrefix(err.Error(), "trusted-documents: "+path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a malformed list is told as %v", err)
	}
}

// fetchBody sends a request and returns the body of its answer.
func fetchBody(t *testing.T, request *http.Request) string {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it has been read
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
