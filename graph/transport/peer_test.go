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
)

const (
	modern = "graphql-transport-ws"
	legacy = "graphql-ws"
	hello  = `{"type":"connection_init"}`
	ack    = `{"type":"connection_ack"}`

	patience = 10 * time.Second
)

// peer is the client's end of a socket.
type peer struct {
	*websocket.Conn
	t *testing.T
}

// dial opens a socket that speaks a protocol.
func (d *door) dial(t *testing.T, protocol string) *peer {
	t.Helper()
	conn, response, err := d.tryDial(t.Context(), nil, protocol)
	must(t, err)
	must(t, response.Body.Close())
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	return &peer{conn, t}
}

func (d *door) tryDial(ctx context.Context, header http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{Subprotocols: protocols}
	return dialer.DialContext(ctx, "ws"+strings.TrimPrefix(d.URL, "http"), header)
}

// session opens a socket and has it acknowledged.
func (d *door) session(t *testing.T) *peer {
	t.Helper()
	p := d.dial(t, modern)
	p.says(hello)
	p.hears(ack)
	return p
}

// says sends messages as they are.
func (p *peer) says(messages ...string) {
	p.t.Helper()
	for _, message := range messages {
		must(p.t, p.WriteMessage(websocket.TextMessage, []byte(message)))
	}
}

// subscribes begins an operation.
func (p *peer) subscribes(id, document string) {
	p.t.Helper()
	p.says(fmt.Sprintf(`{"id":%q,"type":"subscribe","payload":%s}`, id, quoted(document)))
}

// hears wants these messages next, in this order.
func (p *peer) hears(messages ...string) {
	p.t.Helper()
	for _, want := range messages {
		must(p.t, p.SetReadDeadline(time.Now().Add(patience)))
		_, got, err := p.ReadMessage()
		if err != nil || string(got) != want {
			p.t.Fatalf("heard %s (%v), want %s", got, err, want)
		}
	}
}

// isClosed wants the socket closed with a code; messages before that are let
// pass. It returns the reason.
func (p *peer) isClosed(code int) string {
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
