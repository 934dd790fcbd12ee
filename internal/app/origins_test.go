package app

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/config"
)

// TestOrigins checks which web pages may open a WebSocket, send a mutation and read a
// response (CORS). The proxy in front of the server sends the server's own address as
// Host, as nginx does by default.
func TestOrigins(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) {
		c.PublicURL, c.AllowOrigins = "https://Market.Example.com:443/market", []string{"HTTPS://Dashboard.Example.com:443", "http://localhost:3000"}
	})
	for _, row := range []struct {
		origin        string
		trusted, cors bool
	}{
		{"https://market.example.com", true, false},
		{"https://MARKET.example.com:443", true, false},
		{"https://dashboard.example.com", true, true},
		{"https://dashboard.example.com:443", true, true},
		{"http://localhost:3000", true, true},
		{"http://market.example.com", false, false},
		{"https://market.example.com:8443", false, false},
		{"https://evil.example", false, false},
		{"https://market.example.com.evil.example", false, false},
		{"http://localhost:3001", false, false},
		{"null", false, false},
	} {
		if got := dialFrom(b, row.origin); (got == http.StatusSwitchingProtocols) != row.trusted {
			t.Errorf("%s: a WebSocket gets %d", row.origin, got)
		}
		for _, site := range []string{"cross-site", ""} { // old browsers send no Sec-Fetch-Site
			got := b.do(t, http.MethodPost, "/api/agents/register", `{"name":"Bot"}`, "Origin", row.origin, "Sec-Fetch-Site", site)
			if (got.StatusCode == http.StatusOK) != row.trusted {
				t.Errorf("%s: a mutation gets %d %s", row.origin, got.StatusCode, got.body)
			}
			want := ""
			if row.cors {
				want = row.origin
			}
			if allowed := got.Header.Get("Access-Control-Allow-Origin"); allowed != want {
				t.Errorf("%s: Access-Control-Allow-Origin is %q", row.origin, allowed)
			}
		}
	}
	for _, own := range []string{b.url, strings.Replace(b.url, "http:", "https:", 1), ""} { // TLS may end at a proxy
		if got := dialFrom(b, own); got != http.StatusSwitchingProtocols {
			t.Errorf("a WebSocket from %q to the same host gets %d", own, got)
		}
	}
}

// dialFrom opens a WebSocket from a page of an origin, closes it and returns the status
// of the response.
func dialFrom(b *testServer, origin string) int {
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	conn, response, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(b.url, "http")+"/graphql", header)
	if err == nil {
		_ = conn.Close()
	}
	if response == nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}
