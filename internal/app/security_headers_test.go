package app

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/internal/config"
)

// TestSecureHeaders checks the security headers, CORS for the configured origin, and
// the protection against cross-origin writes.
func TestSecureHeaders(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	const allowed, other = "https://dashboard.example", "https://evil.example"
	for _, path := range []string{"/graphql", "/api/tasks", "/explorer", "/openapi.json", "/livez", "/nowhere"} {
		got := b.do(t, http.MethodGet, path, "", "Origin", allowed)
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Access-Control-Allow-Origin": allowed} {
			if got.Header.Get(name) != want {
				t.Errorf("%s: %s is %q", path, name, got.Header.Get(name))
			}
		}
		if policy := got.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src '") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: got policy %q", path, policy)
		}
		if got.Header.Get("Strict-Transport-Security") != "" || got.Header.Get("Server") != "" || got.Header.Get("X-Powered-By") != "" {
			t.Errorf("%s: %v", path, got.Header)
		}
		if got := b.do(t, http.MethodGet, path, "", "Origin", other); got.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s allows another origin", path)
		}
		preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-api-key"}
		if got := b.do(t, http.MethodOptions, path, "", append(preflight, "Origin", allowed)...); got.StatusCode != http.StatusNoContent ||
			!strings.Contains(got.Header.Get("Access-Control-Allow-Headers"), "X-API-Key") {
			t.Errorf("%s: preflight: got %d", path, got.StatusCode)
		}
		if got := b.do(t, http.MethodOptions, path, "", append(preflight, "Origin", other)...); got.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: preflight of another origin is allowed", path)
		}
	}
	got := b.do(t, http.MethodPost, "/api/agents/register", `{"name":"Bot"}`, "Origin", other, "Sec-Fetch-Site", "cross-site")
	if got.StatusCode != http.StatusForbidden || !strings.Contains(got.body, `"code":"FORBIDDEN"`) {
		t.Errorf("cross-origin registration: %d %s", got.StatusCode, got.body)
	}
}

// TestSecureHeaders_hsts checks that a server with an https URL sends HSTS.
func TestSecureHeaders_hsts(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.PublicURL = "https://market.example" })
	for _, path := range []string{"/graphql", "/api/tasks", "/explorer"} {
		if got := b.do(t, http.MethodGet, path, "").Header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestRequestBody_limits checks that a body over the limit and a request with two
// Content-Length headers are rejected.
func TestRequestBody_limits(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\nContent-Length: 5\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	status := make([]byte, 12)
	if _, err := io.ReadFull(conn, status); err != nil || string(status) != "HTTP/1.1 400" {
		t.Errorf("two Content-Length headers: got %q (%v)", status, err)
	}
	for _, path := range []string{"/graphql", "/api/tasks"} {
		got := b.do(t, http.MethodPost, path, strings.Repeat("a", 5<<20), "X-API-Key", b.register(t, ""))
		if got.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(got.body, "PAYLOAD_TOO_LARGE") {
			t.Errorf("%s: 5 MB body: got %d %.200s", path, got.StatusCode, got.body)
		}
	}
}
