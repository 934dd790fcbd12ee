package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"agentmarket.space/server/internal/config"
)

// newServerBelowPath returns a server with the public URL https://example.com/market.
func newServerBelowPath(t *testing.T) *testServer {
	t.Helper()
	return newTestServer(t, func(c *config.Config) { c.PublicURL = "https://example.com/market" })
}

// TestBasePath checks that every page and API is served both with and without the path
// of the public URL, and that all links in the responses have the path or are relative.
func TestBasePath(t *testing.T) {
	t.Parallel()
	b := newServerBelowPath(t)
	for _, path := range []string{
		"/", "/skill.md", "/llms.txt", "/schema.graphqls", "/openapi.json", "/docs", "/docs/", "/docs/rapidoc.js", "/explorer", "/explorer/",
		"/explorer/explorer.js", "/livez", "/readyz", "/metrics", "/api/tasks", "/graphql?query=%7B__typename%7D",
	} {
		direct := b.do(t, http.MethodGet, path, "", "Accept", "text/html, */*")
		if direct.StatusCode != http.StatusOK || direct.body == "" {
			t.Errorf("%s: %d %s", path, direct.StatusCode, direct.body)
		}
		if below := b.do(t, http.MethodGet, "/market"+path, "", "Accept", "text/html, */*"); below.StatusCode != http.StatusOK || len(below.body) == 0 {
			t.Errorf("/market%s: %d %s", path, below.StatusCode, below.body)
		}
		if absolute := regexp.MustCompile(`(?:href|src|data-\w+)="/[^"]*"`).FindAllString(direct.body, -1); absolute != nil {
			t.Errorf("%s has URLs without the path: %q", path, absolute)
		}
		for _, link := range regexp.MustCompile(`(?:https|wss)://example\.com[^\s"')]*`).FindAllString(direct.body, -1) {
			if !strings.Contains(link, "://example.com/market") {
				t.Errorf("%s has the link %s", path, link)
			}
		}
	}
	var document struct{ Servers []struct{ URL string } }
	if err := json.Unmarshal([]byte(b.do(t, http.MethodGet, "/openapi.json", "").body), &document); err != nil || len(document.Servers) != 1 || document.Servers[0].URL != "https://example.com/market" {
		t.Errorf("the OpenAPI document has the servers %v (%v)", document.Servers, err)
	}
	for path, want := range map[string]string{"/market/api/nothing": "see /market/openapi.json", "/marketplace/api/tasks": "404 page not found"} {
		if got := b.do(t, http.MethodGet, path, ""); got.StatusCode != http.StatusNotFound || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
}

// TestBasePath_headers checks the Link of lists, the Location of a hire, and redirects.
func TestBasePath_headers(t *testing.T) {
	t.Parallel()
	b := newServerBelowPath(t)
	key := b.register(t, "")
	b.register(t, `,"endpoint_url":"https://agent.example/"`)
	for _, prefix := range []string{"", "/market"} {
		first := b.do(t, http.MethodGet, prefix+"/api/agents?limit=1", "")
		next := regexp.MustCompile(`^<(/market/api/agents\?.+)>; rel="next"$`).FindStringSubmatch(first.Header.Get("Link"))
		if next == nil {
			t.Fatalf("%s: Link is %q", prefix, first.Header.Get("Link"))
		}
		second := b.do(t, http.MethodGet, next[1], "")
		if second.StatusCode != http.StatusOK || second.Header.Get("Link") != "" || second.body == first.body {
			t.Errorf("the second page is %d %s", second.StatusCode, second.body)
		}
		var page struct{ Data []struct{ ID string } }
		if err := json.Unmarshal([]byte(first.body), &page); err != nil {
			t.Fatal(err)
		}
		hired := b.do(t, http.MethodPost, prefix+"/api/execute", `{"agent_id":"`+page.Data[0].ID+`","task_description":"Work.","budget":10}`,
			"X-API-Key", key, "Prefer", "respond-async")
		location := hired.Header.Get("Location")
		if task := b.do(t, http.MethodGet, location, "", "X-API-Key", key); !strings.HasPrefix(location, "/market/api/tasks/") || task.StatusCode != http.StatusOK {
			t.Errorf("%d %s; Location is %q, which returns %d", hired.StatusCode, hired.body, location, task.StatusCode)
		}
	}
	for path, want := range map[string]string{
		"/market": "/market/", "/market?a=b": "/market/?a=b", "/docs//rapidoc.js?a=b": "/market/docs/rapidoc.js?a=b", "/market//docs": "/market/docs",
		"/market/docs/./": "/market/docs/", "//evil.example/%2e%2e": "/market/evil.example/%2e%2e", "/market/../docs": "/market/docs", "/..//": "/market/",
	} {
		if got := b.record(path); got.Code != http.StatusTemporaryRedirect || got.Header().Get("Location") != want {
			t.Errorf("%s: %d, Location %q", path, got.Code, got.Header().Get("Location"))
		}
		if got := b.record(path); got.Header().Get("Content-Security-Policy") == "" || got.Header().Get("X-Request-Id") == "" {
			t.Errorf("%s: the redirect has the headers %v", path, got.Header())
		}
	}
}

// TestBasePath_ambiguous checks that a path of the server itself is not taken for the
// path of the public URL, and that a server at the root of a host redirects as before.
func TestBasePath_ambiguous(t *testing.T) {
	t.Parallel()
	for public, paths := range map[string]map[string]int{
		"https://example.com/api":  {"/api/tasks": http.StatusOK, "/": http.StatusOK, "/api/api/tasks": http.StatusNotFound},
		"https://example.com/docs": {"/docs/rapidoc.js": http.StatusOK, "/docs": http.StatusOK, "/docs/api/tasks": http.StatusNotFound},
		"https://example.com":      {"/docs//": http.StatusTemporaryRedirect, "/market/docs": http.StatusNotFound, "/": http.StatusOK},
	} {
		b := newTestServer(t, func(c *config.Config) { c.PublicURL = public })
		for path, want := range paths {
			if got := b.record(path); got.Code != want {
				t.Errorf("%s: %s: %d", public, path, got.Code)
			}
		}
	}
}

// record returns the response to a GET request, without following redirects.
func (b *testServer) record(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	b.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://example.com"+path, http.NoBody))
	return w
}
