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
	modern      = "graphql-transport-ws"
	legacy      = "graphql-ws"
	initMessage = `{"type":"connection_init"}`
	ackMessage  = `{"type":"connection_ack"}`
)

// wsClient is the client's end of a socket.
type wsClient struct {
	*websocket.Conn
	t *testing.T
}

// dial opens a socket that speaks a protocol.
func (d *testServer) dial(t *testing.T, protocol string) *wsClient {
	t.Helper()
	conn, response, err := d.tryDial(t.Context(), nil, protocol)
	testutil.Must(t, err)
	testutil.Must(t, response.Body.Close())
	t.Cleanup(func() { _ = conn.Close() })
	testutil.Must(t, conn.SetReadDeadline(time.Now().Add(testutil.Timeout)))
	return &wsClient{conn, t}
}

func (d *testServer) tryDial(ctx context.Context, header http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{Subprotocols: protocols}
	return dialer.DialContext(ctx, "ws"+strings.TrimPrefix(d.URL, "http"), header)
}

// connect opens a socket and has it acknowledged.
func (d *testServer) connect(t *testing.T) *wsClient {
	t.Helper()
	p := d.dial(t, modern)
	p.send(initMessage)
	p.expect(ackMessage)
	return p
}

// send sends messages as they are.
func (p *wsClient) send(messages ...string) {
	p.t.Helper()
	for _, message := range messages {
		testutil.Must(p.t, p.WriteMessage(websocket.TextMessage, []byte(message)))
	}
}

// subscribe begins an operation.
func (p *wsClient) subscribe(id, document string) {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"id":%q,"type":"subscribe","payload":%s}`, id, requestBody(document)))
}

// expect wants these messages next, in this order.
func (p *wsClient) expect(messages ...string) {
	p.t.Helper()
	for _, want := range messages {
		testutil.Must(p.t, p.SetReadDeadline(time.Now().Add(testutil.Timeout)))
		_, got, err := p.ReadMessage()
		if err != nil || string(got) != want {
			p.t.Fatalf("heard %s (%v), want %s", got, err, want)
		}
	}
}

// expectClose wants the socket closed with a code; messages before that are let
// pass. It returns the reason.
func (p *wsClient) expectClose(code int) string {
	p.t.Helper()
	for {
		_, _, err := p.ReadMessage()
		if err == nil {
			continue
		}
		closed, ok := errors.AsType[*websocket.CloseError](err)
		if !ok || closed.Code != code {
			p.t.Fatalf("the socket ended with %v, want %d", err, code)
		}
		return closed.Text
	}
}
