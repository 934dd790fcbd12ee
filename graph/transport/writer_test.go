package transport

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/testutil"
)

// TestSocket_disconnectsStuckPeer checks that a socket is closed even if its slow
// write succeeds just before the write timeout and the writer has stopped.
func TestSocket_disconnectsStuckPeer(t *testing.T) {
	t.Parallel()
	s := openSocket(t)
	s.disconnectStuck()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.transports.wg.Wait()
	}()
	waitFor(t, closed, "the socket to close")
}

// TestSocket_dropsQueuedMessages checks that stopping an operation drops its queued
// messages and makes space for others.
func TestSocket_dropsQueuedMessages(t *testing.T) {
	t.Parallel()
	s := openSocket(t)
	s.writing = true // no writer runs: messages stay queued
	ended, other := &operation{id: "a", cancel: func() {}}, &operation{id: "b", cancel: func() {}}
	s.addOperation(ended)
	s.addOperation(other)
	for range maxQueuedMessages - 1 {
		s.send(t.Context(), outgoingMessage{text: []byte("next"), operation: ended})
	}
	s.send(t.Context(), outgoingMessage{text: []byte("complete"), operation: ended, final: true})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		s.send(t.Context(), outgoingMessage{text: []byte("other"), operation: other})
	}()
	for !s.hasBlockedSender() {
		runtime.Gosched()
	}
	s.stopOperation("a")
	waitFor(t, sent, "the blocked sender")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	if len(s.queue) != 1 || s.queue[0].operation != other || s.queuedBytes != len("other") {
		t.Errorf("got %d queued messages (%d bytes), want only the other operation's", len(s.queue), s.queuedBytes)
	}
}

// hasBlockedSender reports whether a sender waits for space.
func (s *socket) hasBlockedSender() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.space != nil
}

// openSocket opens a socket whose peer sends nothing.
func openSocket(t *testing.T) *socket {
	t.Helper()
	transports := New(Options{
		Address: func(context.Context) string { return "" }, Key: func(context.Context) string { return "" },
	})
	opened := make(chan *socket, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{}
		hijacked := &hijackWriter{ResponseWriter: w}
		ws, err := upgrader.Upgrade(hijacked, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		s := &socket{transports: transports, ws: ws, conn: hijacked.conn, protocol: graphqlTransportWS}
		s.open(context.WithoutCancel(r.Context()))
		if err := transports.addConnection(s.connection); err != nil {
			t.Error(err)
		}
		go s.readLoop()
		opened <- s
	}))
	t.Cleanup(server.Close)
	conn, response, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = response.Body.Close()
	return <-opened
}

func waitFor(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(testutil.Timeout):
		t.Fatalf("timed out waiting for %s", what)
	}
}
