package transport

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// TestCut: a write that took too long may get through just before its socket is
// cut off. The socket is gone nevertheless, though nobody writes any more.
func TestCut(t *testing.T) {
	t.Parallel()
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
	(<-opened).cut()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		transports.group.Wait()
	}()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the socket stays counted")
	}
}
