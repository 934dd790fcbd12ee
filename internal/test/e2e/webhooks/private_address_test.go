package webhooks_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// countConnections counts the connections to an address on 127.0.0.1 and closes each.
func countConnections(t *testing.T) (url string, connections *atomic.Int32) {
	t.Helper()
	listening, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listening.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listening.Close()
		accepting.Wait()
	})
	return "https://" + listening.Addr().String(), connections
}

// TestPrivateAddress_set: every place that takes a URL rejects a private address.
func TestPrivateAddress_set(t *testing.T) {
	t.Parallel()
	local, connections := countConnections(t)
	port := local[strings.LastIndex(local, ":"):]
	server := testserver.Start(t, "AGENTMARKET_ALLOW_PORTS=443,"+port[1:])
	agent := registerAgent(server, "", "x")
	for _, url := range []string{
		local, "https://localhost" + port, "https://LOCALHOST." + port, "https://sub.localhost" + port, "https://127.1" + port,
		"https://2130706433" + port, "https://0x7f000001" + port, "https://0.0.0.0" + port, "https://[::1]" + port,
		"https://[::ffff:127.0.0.1]" + port, "https://[::ffff:7f00:1]" + port, "https://10.0.0.1", "https://192.168.0.1",
		"https://169.254.169.254", "https://[fe80::1]", "https://[fd00::1]", "https://printer.local", "https://intranet",
		"http://example.com", "https://user:password@example.com", "https://example.com:22",
	} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			refused := func(method, path, key, body, code, field string) {
				t.Helper()
				status, text := server.Do(method, path, key, body)
				if !strings.Contains(text, code) || !strings.Contains(text, field) || path != "/graphql" && status != http.StatusBadRequest {
					t.Errorf("%s %s: %d %s", method, path, status, text)
				}
			}
			const code = `"code":"INVALID_INPUT"`
			refused(http.MethodPut, "/api/agents/me/webhook", agent.Key, fmt.Sprintf(`{"webhook_url":%q}`, url), code, "webhook_url")
			refused(http.MethodPost, "/api/agents/register", "", fmt.Sprintf(`{"name":"A","webhook_url":%q}`, url), code, "webhook_url")
			refused(http.MethodPost, "/graphql", agent.Key,
				fmt.Sprintf(`{"query":"mutation($url: URL!) { setWebhook(input: {url: $url}) { secret } }","variables":{"url":%q}}`, url), code, `"field":"url"`)
		})
	}
	t.Cleanup(func() {
		if n := connections.Load(); n != 0 {
			t.Errorf("%d connections to the private address", n)
		}
	})
}

// TestPrivateAddress_dial: a name that resolves to a private address is rejected when it is
// dialed, although it was set while such addresses were allowed.
func TestPrivateAddress_dial(t *testing.T) {
	t.Parallel()
	local, connections := countConnections(t)
	named := strings.Replace(local, "127.0.0.1", "localhost", 1)
	port := local[strings.LastIndex(local, ":")+1:]
	server := testserver.Start(t, "AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8,::1/128", "AGENTMARKET_ALLOW_PORTS="+port, "AGENTMARKET_WEBHOOK_RETRIES=10ms")
	agents := []testserver.Agent{registerAgent(server, named, "x"), registerAgent(server, local, "x")}
	poster := registerAgent(server, "")
	called := server.PostTask(poster.Key, "x")
	for _, agent := range agents {
		waitForOutcome(t, server, agent.Key, called)
	}
	before := connections.Load()
	if before < 4 {
		t.Fatalf("%d connections while they were allowed", before)
	}

	server.Stop()
	server.Restart("AGENTMARKET_ALLOW_NETWORKS=")
	uncalled := server.PostTask(poster.Key, "x")
	for _, agent := range agents {
		const want = "FAILED after 2; 1: 0 the address is not public; 2: 0 the address is not public"
		if done := waitForOutcome(t, server, agent.Key, uncalled); done.summary() != want {
			t.Errorf("got %q", done.summary())
		}
	}
	if now := connections.Load(); now != before {
		t.Errorf("%d connections to the private address", now-before)
	}
}
