package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/testutil"
)

const (
	graphqlTransportWS       = "graphql-transport-ws"
	subscriptionsTransportWS = "graphql-ws"
	initMessage              = `{"type":"connection_init"}`
	ackMessage               = `{"type":"connection_ack"}`

	subscribeSilence = `{"id":"1","type":"subscribe","payload":{"query":"subscription { silence }"}}`
)

// wsClient is a WebSocket client.
type wsClient struct {
	*websocket.Conn
	t *testing.T
}

// dial opens a socket with a subprotocol.
func (server *testServer) dial(t *testing.T, protocol string) *wsClient {
	t.Helper()
	conn, response, err := server.tryDial(t.Context(), nil, protocol)
	testutil.Must(t, err)
	testutil.Must(t, response.Body.Close())
	t.Cleanup(func() { _ = conn.Close() })
	testutil.Must(t, conn.SetReadDeadline(time.Now().Add(testutil.Timeout)))
	return &wsClient{conn, t}
}

func (server *testServer) tryDial(ctx context.Context, header http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{Subprotocols: protocols}
	return dialer.DialContext(ctx, "ws"+strings.TrimPrefix(server.URL, "http"), header)
}

// connect opens a socket and completes connection_init.
func (server *testServer) connect(t *testing.T) *wsClient {
	t.Helper()
	client := server.dial(t, graphqlTransportWS)
	client.send(initMessage)
	client.expect(ackMessage)
	return client
}

// send sends text messages.
func (client *wsClient) send(messages ...string) {
	client.t.Helper()
	for _, message := range messages {
		testutil.Must(client.t, client.WriteMessage(websocket.TextMessage, []byte(message)))
	}
}

// subscribe starts an operation.
func (client *wsClient) subscribe(id, document string) {
	client.t.Helper()
	client.send(fmt.Sprintf(`{"id":%q,"type":"subscribe","payload":%s}`, id, requestBody(document)))
}

// expect reads the next messages and compares them.
func (client *wsClient) expect(messages ...string) {
	client.t.Helper()
	for _, want := range messages {
		testutil.Must(client.t, client.SetReadDeadline(time.Now().Add(testutil.Timeout)))
		_, got, err := client.ReadMessage()
		if err != nil || string(got) != want {
			client.t.Fatalf("got %s (%v), want %s", got, err, want)
		}
	}
}

// expectNoMessage checks that no message arrives before the response to a ping.
func (client *wsClient) expectNoMessage() {
	client.t.Helper()
	client.send(`{"type":"ping"}`)
	client.expect(`{"type":"pong","payload":null}`)
}

// expectClose reads until the socket is closed, checks the code and returns the
// reason.
func (client *wsClient) expectClose(code int) string {
	client.t.Helper()
	for {
		_, _, err := client.ReadMessage()
		if err == nil {
			continue
		}
		closeErr, ok := errors.AsType[*websocket.CloseError](err)
		if !ok || closeErr.Code != code {
			client.t.Fatalf("socket closeErr with %v, want %d", err, code)
		}
		return closeErr.Text
	}
}
