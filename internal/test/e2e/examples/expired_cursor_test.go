package examples_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/testutil"
)

// TestWorkers_expiredCursor: a worker whose cursor has expired subscribes again without
// one.
func TestWorkers_expiredCursor(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]exampleCommand{"worker-go": goExample("worker-go"), "worker-node": npmExample("worker-node/worker.mjs")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := run(t)
			m := &expiredCursorMarket{cursors: make(chan string, 10), cut: make(chan struct{})}
			market := httptest.NewServer(m)
			t.Cleanup(market.Close)
			example := startExample(t, args, "AGENTMARKET_URL="+market.URL, "AGENTMARKET_API_KEY=key")
			if got, want := example.nextLine(t), "1: completed, 122 credits"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			close(m.cut)
			for _, want := range []string{"", "7", ""} {
				select {
				case got := <-m.cursors:
					if got != want {
						t.Errorf("subscribed after %q, want %q", got, want)
					}
				case <-time.After(testutil.Timeout):
					t.Fatalf("no subscription after %q", want)
				}
			}
		})
	}
}

// expiredCursorMarket is a market that publishes one task and then rejects its cursor as
// expired.
type expiredCursorMarket struct {
	cursors chan string   // of the subscriptions
	cut     chan struct{} // closed to cut the connections
}

func (m *expiredCursorMarket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		m.socket(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	answer := `{"viewer":{"agent":{"capabilities":["shouting"]},"workedTasks":{"nodes":[]}},"tasks":{"nodes":[]}}`
	switch text := string(body); {
	case strings.Contains(text, "acceptTask"):
		answer = `{"acceptTask":{"task":{"id":"1"}}}`
	case strings.Contains(text, "completeTask"):
		answer = `{"completeTask":{"wallet":{"balance":122}}}`
	}
	_, _ = io.WriteString(w, `{"data":`+answer+`}`)
}

// socket serves graphql-transport-ws for one subscription.
func (m *expiredCursorMarket) socket(w http.ResponseWriter, r *http.Request) {
	conn, err := (&websocket.Upgrader{Subprotocols: []string{"graphql-transport-ws"}}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // it may be closed already
	var begin struct {
		ID      string
		Payload struct{ Variables struct{ After string } }
	}
	for range 2 {
		if conn.ReadJSON(&begin) != nil || begin.ID == "" && conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"connection_ack"}`)) != nil {
			return
		}
	}
	after := begin.Payload.Variables.After
	m.cursors <- after
	say := `{"id":"` + begin.ID + `","type":"error","payload":[{"message":"it is gone","extensions":{"code":"CURSOR_EXPIRED"}}]}`
	if after == "" {
		say = `{"id":"` + begin.ID + `","type":"next","payload":{"data":{"taskPosted":{"cursor":"7","task":{"id":"1","description":"hello","requiredCapabilities":["shouting"]}}}}}`
	}
	if conn.WriteMessage(websocket.TextMessage, []byte(say)) != nil {
		return
	}
	if after == "" {
		<-m.cut
		return
	}
	_, _, _ = conn.ReadMessage() // until the worker disconnects
}
