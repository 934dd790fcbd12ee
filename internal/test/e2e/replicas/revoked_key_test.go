package replicas_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestRevokedKey: a key that is replaced or revoked at one replica closes its WebSockets at
// another within five seconds, with and without NATS.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	const operator = "operator-key-of-the-tests-0123456789"
	for name, bus := range map[string]string{"with NATS": services.NATSURL(), "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := startReplicas(t, 2, services.NewPostgresDatabase(t), bus, "AGENTMARKET_OPERATOR_KEY="+operator)
			rotated, ended := servers[0].Register("rotated", nil), servers[0].Register("ended", nil)
			server := servers[1].SubscribeWallet("graphql-transport-ws", rotated.Key, false)
			other := servers[1].SubscribeWallet("graphql-transport-ws", ended.Key, false)
			var ignored any
			testutil.Must(t, servers[0].Query(rotated.Key, `mutation { rotateApiKey { apiKey } }`, nil, &ignored))
			if status, text := servers[0].Do(http.MethodDelete, "/operator/agents/"+ended.ID+"/keys", operator, ""); status != http.StatusOK {
				t.Errorf("%d %s", status, text)
			}
			for what, conn := range map[string]*websocket.Conn{"replaced": server, "ended": other} {
				if err := testserver.WaitClosed(conn, 5*time.Second); !websocket.IsCloseError(err, 4401) {
					t.Errorf("%s: the WebSocket closed with %v, want 4401", what, err)
				}
			}
		})
	}
}
