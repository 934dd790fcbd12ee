package e2e_test

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// maxRevocationTime is the documented time within which connections of a revoked key are
// closed.
const maxRevocationTime = 5 * time.Second

// TestRevokedKey: when an agent replaces its key, or the operator revokes it, every
// WebSocket and stream opened with it is closed within five seconds, others stay open, and
// the key is rejected.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t, "AGENTMARKET_OPERATOR_KEY="+operatorKey)
	stays := server.Register("Other", nil)
	bystander := server.SubscribeWallet("graphql-transport-ws", stays.Key, false)
	for name, revoke := range map[string]func(testserver.Agent){
		"replaced": func(agent testserver.Agent) {
			var ignored any
			if err := server.Query(agent.Key, `mutation { rotateApiKey { apiKey } }`, nil, &ignored); err != nil {
				t.Error(err)
			}
		},
		"ended by the operator": func(agent testserver.Agent) {
			if status, text := server.Do(http.MethodDelete, "/operator/agents/"+agent.ID+"/keys", operatorKey, ""); status != http.StatusOK {
				t.Errorf("%d %s", status, text)
			}
		},
	} {
		agent := server.Register("Agent", nil)
		open := map[string]*websocket.Conn{
			"a key in the init message": server.SubscribeWallet("graphql-transport-ws", agent.Key, false),
			"a key in the header":       server.SubscribeWallet("graphql-transport-ws", agent.Key, true),
			"the older protocol":        server.SubscribeWallet("graphql-ws", agent.Key, false),
		}
		stream := openEventStream(t, server, agent.Key)
		revoke(agent)
		for what, conn := range open {
			if err := testserver.WaitClosed(conn, maxRevocationTime); !websocket.IsCloseError(err, 4401) {
				t.Errorf("%s, %s: the WebSocket closed with %v, want 4401", name, what, err)
			}
		}
		select {
		case text := <-stream:
			if !strings.Contains(text, "UNAUTHENTICATED") {
				t.Errorf("%s: the stream ended with %s", name, text)
			}
		case <-time.After(maxRevocationTime):
			t.Errorf("%s: the stream is still open", name)
		}
		for _, path := range []string{"/api/wallet", "/api/tasks", "/graphql?query=%7B__typename%7D"} {
			if status, text := server.Do(http.MethodGet, path, agent.Key, ""); status != http.StatusUnauthorized {
				t.Errorf("%s: %s: %d %s", name, path, status, text)
			}
		}
	}
	server.PostTask(stays.Key, "x")
	if _, text, err := bystander.ReadMessage(); err != nil || !strings.Contains(string(text), "walletChanged") {
		t.Errorf("another agent's WebSocket: %s %v", text, err)
	}
}

// openEventStream subscribes over server-sent events and returns when the first event
// arrives. It sends everything received once the stream has ended.
func openEventStream(t *testing.T, server *testserver.Server, key string) <-chan string {
	t.Helper()
	query := url.QueryEscape(`subscription { walletChanged(after: "0") { cursor } }`)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/graphql?query="+query, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("X-API-Key", key)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	begun, ended := make(chan struct{}), make(chan string, 1)
	go func() {
		defer response.Body.Close() //nolint:errcheck // it is read to the end
		var all strings.Builder
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			_, _ = fmt.Fprintln(&all, lines.Text())
			if strings.Contains(lines.Text(), "cursor") {
				close(begun)
			}
		}
		ended <- all.String()
	}()
	select {
	case <-begun:
	case <-time.After(testutil.Timeout):
		t.Fatal("no event arrived")
	}
	return ended
}
