package replicas_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// retryDelay is the pause after a replica did not respond.
const retryDelay = 10 * time.Millisecond

// eventSubscriber receives every task over a WebSocket or server-sent events. When its
// connection closes it resumes after its last cursor at the next replica.
type eventSubscriber struct {
	socket bool

	mu      sync.Mutex
	cursors []int64
	tasks   []string
}

func (f *eventSubscriber) run(ctx context.Context, servers []*testserver.Server, first int) {
	for i := first; ctx.Err() == nil; i++ {
		if f.socket {
			f.receiveWebSocket(ctx, servers[i%len(servers)])
		} else {
			f.receiveSSE(ctx, servers[i%len(servers)])
		}
		waitRetryDelay(ctx)
	}
}

// waitRetryDelay waits for retryDelay or until ctx is done.
func waitRetryDelay(ctx context.Context) {
	select {
	case <-time.After(retryDelay):
	case <-ctx.Done():
	}
}

// subscribePayload returns a subscription that starts after the last event.
func (f *eventSubscriber) subscribePayload() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var cursor int64
	if len(f.cursors) > 0 {
		cursor = f.cursors[len(f.cursors)-1]
	}
	return fmt.Sprintf(`{"query": "subscription { taskPosted(capabilities: [], after: \"%d\") { cursor task { id } } }"}`, cursor)
}

// receiveSSE receives server-sent events until the stream ends.
func (f *eventSubscriber) receiveSSE(ctx context.Context, server *testserver.Server) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/graphql", strings.NewReader(f.subscribePayload()))
	if err != nil {
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	defer response.Body.Close() //nolint:errcheck // the stream has ended
	f.readSSE(response.Body)
}

func (f *eventSubscriber) readSSE(stream io.Reader) {
	lines := bufio.NewScanner(stream)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "data:"); ok {
			f.record([]byte(text))
		}
	}
}

// receiveWebSocket receives events until the WebSocket is closed.
func (f *eventSubscriber) receiveWebSocket(ctx context.Context, server *testserver.Server) {
	conn, err := server.DialWebSocket(ctx)
	if err != nil {
		return
	}
	stopWatching := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks the read
	defer stopWatching()
	defer conn.Close() //nolint:errcheck // it is closed or not needed any more
	if conn.WriteMessage(websocket.TextMessage, []byte(`{"id": "1", "type": "subscribe", "payload": `+f.subscribePayload()+`}`)) != nil {
		return
	}
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return
		}
		var message struct{ Payload json.RawMessage }
		if json.Unmarshal(text, &message) == nil && len(message.Payload) > 0 {
			f.record(message.Payload)
		}
	}
}

// record records the event of a message, if it has one.
func (f *eventSubscriber) record(text []byte) {
	var message struct {
		Data struct {
			TaskPosted *struct {
				Cursor string
				Task   struct{ ID string }
			}
		}
	}
	if json.Unmarshal(text, &message) != nil || message.Data.TaskPosted == nil {
		return
	}
	event := message.Data.TaskPosted
	cursor, _ := strconv.ParseInt(event.Cursor, 10, 64) // 0 would be out of order
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cursors, f.tasks = append(f.cursors, cursor), append(f.tasks, event.Task.ID)
}

func (f *eventSubscriber) eventCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.tasks)
}

// check checks that each of the sorted tasks was received once, in the order of cursors.
func (f *eventSubscriber) check(t *testing.T, posted []string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 1; i < len(f.cursors); i++ {
		if f.cursors[i-1] >= f.cursors[i] {
			t.Fatalf("received cursor %d after %d", f.cursors[i], f.cursors[i-1])
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(f.tasks)), posted) {
		t.Errorf("a subscriber received %d tasks, want the %d posted tasks once", len(f.tasks), len(posted))
	}
}
