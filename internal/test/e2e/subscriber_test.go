package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

func dialWebSocket(t *testing.T, server *testserver.Server) *websocket.Conn {
	t.Helper()
	conn, err := server.DialWebSocket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// eventSubscriber receives posted tasks from the first one on. When its connection closes
// it resubscribes after its last cursor.
type eventSubscriber struct {
	server *testserver.Server

	mu      sync.Mutex
	cursor  string // of the last event; "0" is before the first
	tasks   []string
	sockets int
}

// run subscribes until ctx is done. Before each connection it calls ready, which may block.
func (f *eventSubscriber) run(ctx context.Context, ready func()) {
	for ctx.Err() == nil {
		ready()
		if conn, err := f.server.DialWebSocket(ctx); err == nil {
			f.receive(ctx, conn)
		}
	}
}

// receive records events until the connection closes.
func (f *eventSubscriber) receive(ctx context.Context, conn *websocket.Conn) {
	stopWatching := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks the read
	defer stopWatching()
	defer conn.Close() //nolint:errcheck // it is closed or not needed any more
	f.mu.Lock()
	after := f.cursor
	f.sockets++
	f.mu.Unlock()
	subscribe := fmt.Sprintf(`{"id":"1","type":"subscribe","payload":{"query":"subscription($after: String) { taskPosted(capabilities: [], after: $after) { cursor task { id } } }","variables":{"after":%q}}}`, after)
	if conn.WriteMessage(websocket.TextMessage, []byte(subscribe)) != nil {
		return
	}
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return
		}
		var message struct {
			Type    string
			Payload struct {
				Data struct {
					TaskPosted struct {
						Cursor string
						Task   struct{ ID string }
					}
				}
			}
		}
		if json.Unmarshal(text, &message) != nil || message.Type != "next" {
			continue // a ping
		}
		f.mu.Lock()
		f.cursor = message.Payload.Data.TaskPosted.Cursor
		f.tasks = append(f.tasks, message.Payload.Data.TaskPosted.Task.ID)
		f.mu.Unlock()
	}
}

// waitForTask waits for a task and returns all tasks received so far.
func (f *eventSubscriber) waitForTask(t *testing.T, task string) []string {
	t.Helper()
	var heard []string
	testutil.Eventually(t, "the last task to arrive", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		heard = slices.Clone(f.tasks)
		return slices.Contains(heard, task)
	})
	return heard
}
