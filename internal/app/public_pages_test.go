package app

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/internal/config"
)

// TestPageRoutes checks that the public pages are served without a key, with an ETag,
// and only for GET and HEAD.
func TestPageRoutes(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	for path, contentType := range map[string]string{
		"/": "text/plain; charset=utf-8", "/skill.md": "text/markdown; charset=utf-8", "/llms.txt": "text/plain; charset=utf-8",
		"/openapi.json": "application/json", "/schema.graphqls": "application/graphql; charset=utf-8",
		"/docs": "text/html; charset=utf-8", "/docs/rapidoc.js": "text/javascript; charset=utf-8", "/explorer": "text/html; charset=utf-8",
	} {
		plain := []string{"Accept-Encoding", "identity"}
		got := b.do(t, http.MethodGet, path, "", plain...)
		if got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != contentType || got.body == "" {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.Header.Get("Content-Type"))
		}
		if head := b.do(t, http.MethodHead, path, "", plain...); head.StatusCode != http.StatusOK || head.Header.Get("ETag") != got.Header.Get("ETag") || head.body != "" {
			t.Errorf("HEAD %s: %d, ETag %q, want ETag %q", path, head.StatusCode, head.Header.Get("ETag"), got.Header.Get("ETag"))
		}
		if cached := b.do(t, http.MethodGet, path, "", append(plain, "If-None-Match", got.Header.Get("ETag"))...); cached.StatusCode != http.StatusNotModified {
			t.Errorf("%s with its ETag: %d", path, cached.StatusCode)
		}
		if put := b.do(t, http.MethodPut, path, "{}"); put.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("PUT %s: %d", path, put.StatusCode)
		}
	}
}

// TestGuideFacts checks that the public texts contain the settings and the routes of
// the server.
func TestGuideFacts(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) {
		c.MinBudget, c.StartingCredits, c.RateLimits, c.AnthropicAPIKey = 7, 345, "on", "sk-ant-planted"
	})
	skill := b.do(t, http.MethodGet, "/skill.md", "").body
	for _, want := range []string{"http://market.example/api/tasks", "7 to 1000000000 credits", "345 credits", "100 per second, burst 200", "burst 60", "`system_prompt`", "`walletChanged`"} {
		if !strings.Contains(skill, want) {
			t.Errorf("skill.md does not contain %q", want)
		}
	}
	var document struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal([]byte(b.do(t, http.MethodGet, "/openapi.json", "").body), &document); err != nil {
		t.Fatal(err)
	}
	var documented, listed []string
	for path, methods := range document.Paths {
		for method := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]+)` \\| (?:yes|no) \\| .+ \\|$").FindAllStringSubmatch(skill, -1) {
		listed = append(listed, row[1])
	}
	slices.Sort(documented)
	slices.Sort(listed)
	if !slices.Equal(documented, listed) || len(listed) == 0 {
		t.Errorf("skill.md lists %q, the OpenAPI document %q", listed, documented)
	}
	for _, link := range regexp.MustCompile(`\]\(http://market\.example([^)]*)\)`).FindAllStringSubmatch(b.do(t, http.MethodGet, "/llms.txt", "").body, -1) {
		if got := b.do(t, http.MethodGet, link[1], ""); got.StatusCode != http.StatusOK {
			t.Errorf("link %s in llms.txt: %d", link[1], got.StatusCode)
		}
	}
}

// TestSchemaIsServed checks that the schema is public if introspection is on.
func TestSchemaIsServed(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../../schema.graphqls")
	if err != nil {
		t.Fatal(err)
	}
	if got := newTestServer(t, nil).do(t, http.MethodGet, "/schema.graphqls", "").body; got != string(want) {
		t.Errorf("got %s", got)
	}
	off := newTestServer(t, func(c *config.Config) { c.Introspection = "off" })
	if got := off.do(t, http.MethodGet, "/schema.graphqls", ""); got.StatusCode != http.StatusNotFound {
		t.Errorf("with introspection off: got %d", got.StatusCode)
	}
	for _, path := range []string{"/skill.md", "/llms.txt"} {
		if strings.Contains(off.do(t, http.MethodGet, path, "").body, "schema.graphqls") {
			t.Errorf("with introspection off %s links to the schema", path)
		}
	}
}
