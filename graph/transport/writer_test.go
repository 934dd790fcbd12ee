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
)

// TestSocket_disconnectsStuckPeer: a write that took too long may get through just before its socket is
// cut off. The socket is gone nevertheless, though nobody writes any more.
func TestSocket_disconnectsStuckPeer(t *testing.T) {
	t.Parallel()
	s := openSocket(t)
	s.disconnectStuck()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.transports.wg.Wait()
	}()
	waitFor(t, gone, "the socket is gone")
}

// TestSocket_dropsQueuedMessages: what waits of operations that the client has ended is dropped, and
// makes room for what others say.
func TestSocket_dropsQueuedMessages(t *testing.T) {
	t.Parallel()
	s := openSocket(t)
	s.writing = true // nobody is: all waits
	ended, other := &operation{id: "a", cancel: func() {}}, &operation{id: "b", cancel: func() {}}
	s.addOperation(ended)
	s.addOperation(other)
	for range maxQueuedMessages - 1 {
		s.send(t.Context(), outgoingMessage{text: []byte("next"), operation: ended})
	}
	s.send(t.Context(), outgoingMessage{text: []byte("complete"), operation: ended, final: true})
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		s.send(t.Context(), outgoingMessage{text: []byte("other"), operation: other})
	}()
	for !s.hasBlockedSender() {
		runtime.Gosched()
	}
	s.stopOperation("a")
	waitFor(t, waited, "there is room")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	if len(s.queue) != 1 || s.queue[0].operation != other || s.queuedBytes != len("other") {
		t.Errorf("%d texts of %d bytes wait, want the one of the other operation", len(s.queue), s.queuedBytes)
	}
}

// hasBlockedSender reports whether somebody waits for room.
func (s *socket) hasBlockedSender() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.space != nil
}

// openSocket opens a socket whose peer says nothing.
func openSocket(t *testing.T) *socket {
	t.Helper()
	transports := New(Options{
		Address: func(context.Context) string { return "" }, Key: func(context.Context) string { return "" },
	})
	opened := make(chan *socket, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{}
		taken := &hijackWriter{ResponseWriter: w}
		ws, err := upgrader.Upgrade(taken, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		s := &socket{transports: transports, ws: ws, conn: taken.conn, protocol: modern}
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
	case <-time.After(10 * time.Second):
		t.Fatalf("waited too long until %s", what)
	}
}
