package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

const rotateDocument = "mutation { rotateApiKey { apiKey } }"

var newKeyPattern = regexp.MustCompile(`"apiKey":"([0-9a-f]{64})"`)

// rotateOverSocket replaces a key over a new WebSocket, and returns everything that the
// server sent until it closed the socket.
func rotateOverSocket(t *testing.T, server *testserver.Server, protocol, key string) (received string) {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{protocol}}
	conn, response, err := dialer.DialContext(t.Context(), strings.Replace(server.URL, "http", "ws", 1)+"/graphql", nil)
	testutil.Must(t, err)
	testutil.Must(t, response.Body.Close())
	defer func() { _ = conn.Close() }()
	testutil.Must(t, conn.SetReadDeadline(time.Now().Add(testutil.Timeout)))
	start := map[string]string{"graphql-transport-ws": "subscribe", "graphql-ws": "start"}[protocol]
	for _, message := range []string{
		`{"type":"connection_init","payload":{"apiKey":"` + key + `"}}`,
		`{"type":"` + start + `","id":"0","payload":{"query":"subscription { walletChanged { cursor } }"}}`,
		`{"type":"` + start + `","id":"1","payload":{"query":"` + rotateDocument + `"}}`,
	} {
		testutil.Must(t, conn.WriteMessage(websocket.TextMessage, []byte(message)))
	}
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err, 4401) {
				t.Errorf("the socket ended with %v, want 4401", err)
			}
			return received
		}
		received += string(text)
	}
}

// TestRotateAPIKey_answered: a key that is replaced over a WebSocket or an event stream is
// answered every time, although the connection is closed with its key.
func TestRotateAPIKey_answered(t *testing.T) {
	t.Parallel()
	const rotations = 80
	server := testserver.Start(t, storeSettings(t)...)
	for name, rotate := range map[string]func(*testing.T, string) string{
		"graphql-transport-ws": func(t *testing.T, key string) string {
			t.Helper()
			return rotateOverSocket(t, server, "graphql-transport-ws", key)
		},
		"graphql-ws": func(t *testing.T, key string) string {
			t.Helper()
			return rotateOverSocket(t, server, "graphql-ws", key)
		},
		"event stream": func(t *testing.T, key string) string {
			t.Helper()
			_, text := server.Do(http.MethodPost, "/graphql", key, `{"query":"`+rotateDocument+`"}`, "Accept", "text/event-stream")
			return text
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := server.Register("Agent", nil).Key
			for i := range rotations {
				text := rotate(t, key)
				found := newKeyPattern.FindStringSubmatch(text)
				if found == nil {
					t.Fatalf("rotation %d: no new key in %q", i, text)
				}
				key = found[1]
			}
			if status, text := server.Do(http.MethodGet, "/api/wallet", key, ""); status != http.StatusOK {
				t.Errorf("the last key: %d %s", status, text)
			}
		})
	}
}

// lostAnswer calls rotateApiKey with one Idempotency-Key until there is a response, and
// checks that the new key is valid. restart is called after each lost response.
func lostAnswer(t *testing.T, server *testserver.Server, key, idempotencyKey string, restart func()) (newKey string) {
	t.Helper()
	testutil.Eventually(t, "the new key", func() bool {
		status, text := server.Do(http.MethodPost, "/graphql", key, `{"query":"`+rotateDocument+`"}`, "Idempotency-Key", idempotencyKey)
		found := newKeyPattern.FindStringSubmatch(text)
		if found == nil {
			if status != 0 && status != http.StatusInternalServerError && status != http.StatusServiceUnavailable && !strings.Contains(text, "INTERNAL") {
				t.Fatalf("%d %s", status, text)
			}
			restart()
			return false
		}
		newKey = found[1]
		return true
	})
	if status, text := server.Do(http.MethodGet, "/api/wallet", newKey, ""); status != http.StatusOK || !strings.Contains(text, `"balance":100`) {
		t.Errorf("the new key: %d %s", status, text)
	}
	return newKey
}

// TestRotateAPIKey_killed: a server is killed while it replaces a key. The same request,
// with the old key, returns the new key, whether or not the change was committed.
func TestRotateAPIKey_killed(t *testing.T) {
	t.Parallel()
	const kills = 8
	server := testserver.Start(t, storeSettings(t)...)
	key := server.Register("Agent", nil).Key
	for i := range kills {
		idempotencyKey := uuid.NewString()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			server.Do(http.MethodPost, "/graphql", key, `{"query":"`+rotateDocument+`"}`, "Idempotency-Key", idempotencyKey)
		}()
		for range i { // kills at different moments
			server.Do(http.MethodGet, "/livez", "", "")
		}
		server.Kill()
		<-sent
		server.Restart()
		key = lostAnswer(t, server, key, idempotencyKey, func() { t.Fatal("no response after the restart") })
	}
	server.Verify()
}

// TestFailpoints_lostAnswers: a server is killed or hangs before and after the commit of a new API key
// and of a registration. The repeated request gets the key.
func TestFailpoints_lostAnswers(t *testing.T) {
	t.Parallel()
	trusttest.SkipUnlessTrust(t)
	binary := failpointsBinary(t)
	file := filepath.Join(t.TempDir(), "failpoint")
	server := testserver.StartCommand(t, []string{binary}, append(storeSettings(t), "AGENTMARKET_FAILPOINT="+file)...)
	restart := func() {
		select {
		case <-server.Exited():
			server.Restart()
		default:
		}
	}
	for _, step := range []string{"batch-run", "batch-committed"} {
		for _, fault := range []string{"kill", "stall"} {
			testutil.Must(t, os.WriteFile(file, []byte(step+"="+fault), 0o600))
			registration, idempotencyKey := fmt.Sprintf(`{"name":"Agent %s %s"}`, step, fault), uuid.NewString()
			var key string
			testutil.Eventually(t, "the registration", func() bool {
				_, text := server.Do(http.MethodPost, "/api/agents/register", "", registration, "Idempotency-Key", idempotencyKey)
				_, rest, ok := strings.Cut(text, `"api_key":"`)
				if !ok {
					restart()
					return false
				}
				key = rest[:64]
				return true
			})
			testutil.Must(t, os.WriteFile(file, []byte(step+"="+fault), 0o600))
			lostAnswer(t, server, key, uuid.NewString(), restart)
		}
	}
	server.Verify()
}
