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

// TestCut: a write that took too long may get through just before its socket is
// cut off. The socket is gone nevertheless, though nobody writes any more.
func TestCut(t *testing.T) {
	t.Parallel()
	s := openSocket(t)
	s.cut()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.transports.group.Wait()
	}()
	within(t, gone, "the socket is gone")
}

// TestUnsaid: what waits of operations that the client has ended is dropped, and
// makes room for what others say.
func TestUnsaid(t *testing.T) {
	t.Parallel()
	s := openSocket(t)
	s.writing = true // nobody is: all waits
	ended, other := &running{id: "a", stop: func() {}}, &running{id: "b", stop: func() {}}
	s.enter(ended)
	s.enter(other)
	for range maxQueued - 1 {
		s.send(t.Context(), said{text: []byte("next"), by: ended})
	}
	s.send(t.Context(), said{text: []byte("complete"), by: ended, last: true})
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		s.send(t.Context(), said{text: []byte("other"), by: other})
	}()
	for !s.isFull() {
		runtime.Gosched()
	}
	s.stop("a")
	within(t, waited, "there is room")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	if len(s.frames) != 1 || s.frames[0].by != other || s.waiting != len("other") {
		t.Errorf("%d texts of %d bytes wait, want the one of the other operation", len(s.frames), s.waiting)
	}
}

// isFull reports whether somebody waits for room.
func (s *socket) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.room != nil
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
		taken := &hijack{ResponseWriter: w}
		ws, err := upgrader.Upgrade(taken, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		s := &socket{transports: transports, ws: ws, wire: taken.wire, speaks: modern}
		s.open(context.WithoutCancel(r.Context()))
		if err := transports.join(s.live); err != nil {
			t.Error(err)
		}
		go s.read()
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

func within(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("waited too long until %s", what)
	}
}
