package graph

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// clientSubscription is the client side of a subscription.
type clientSubscription struct {
	t           *testing.T
	next        func() (a gqlResponse, done bool)
	unsubscribe func()
}

// subscribeFuncs returns the transports for subscriptions.
func subscribeFuncs() map[string]func(*bundle, *testing.T, caller, string) *clientSubscription {
	return map[string]func(*bundle, *testing.T, caller, string) *clientSubscription{
		"WebSocket": (*bundle).subscribeWebSocket, "server-sent events": (*bundle).subscribeSSE,
	}
}

// dialSmallBuffer connects with a small receive buffer, so that the server's writes block
// soon when the client does not read.
func dialSmallBuffer(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = tcp.SetReadBuffer(64 << 10)
	}
	return conn, err
}

// dialWebSocket opens a socket for a caller; header may be nil.
func (b *bundle) dialWebSocket(t *testing.T, c caller, header http.Header) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}, NetDialContext: dialSmallBuffer}
	conn, response, err := dialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.url, "http"), header)
	testutil.Must(t, err)
	testutil.Must(t, response.Body.Close())
	t.Cleanup(func() { _ = conn.Close() })
	testutil.Must(t, conn.SetReadDeadline(time.Now().Add(testutil.Timeout)))
	payload := "{}"
	if c.key != "" {
		payload = fmt.Sprintf(`{"X-API-Key":%q}`, c.key)
	}
	testutil.Must(t, conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"connection_init","payload":`+payload+`}`)))
	_, text, err := conn.ReadMessage()
	testutil.Must(t, err)
	if string(text) != `{"type":"connection_ack"}` {
		t.Fatalf("got message %s", text)
	}
	return conn
}

// subscribeWebSocket subscribes over a new WebSocket.
func (b *bundle) subscribeWebSocket(t *testing.T, c caller, document string) *clientSubscription {
	t.Helper()
	conn := b.dialWebSocket(t, c, nil)
	query, err := json.Marshal(map[string]string{"query": document})
	testutil.Must(t, err)
	testutil.Must(t, conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":"1","type":"subscribe","payload":%s}`, query)))
	next := func() (a gqlResponse, done bool) {
		var message struct {
			Type    string
			Payload json.RawMessage
		}
		testutil.Must(t, conn.ReadJSON(&message))
		switch message.Type {
		case "next":
			testutil.Must(t, json.Unmarshal(message.Payload, &a))
			return a, false
		case "error":
			testutil.Must(t, json.Unmarshal(message.Payload, &a.Errors))
			return a, true
		case "complete":
			return a, true
		default:
			t.Fatalf("got message %s", message.Type)
			return a, true
		}
	}
	return &clientSubscription{t: t, next: next, unsubscribe: func() { _ = conn.Close() }}
}

// subscribeSSE subscribes over server-sent events.
func (b *bundle) subscribeSSE(t *testing.T, c caller, document string) *clientSubscription {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Timeout)
	t.Cleanup(cancel)
	query, err := json.Marshal(map[string]string{"query": document})
	testutil.Must(t, err)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(query))
	testutil.Must(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	if c.key != "" {
		request.Header.Set("X-Api-Key", c.key)
	}
	response, err := (&http.Transport{DialContext: dialSmallBuffer, DisableKeepAlives: true}).RoundTrip(request)
	testutil.Must(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	lines := bufio.NewReader(response.Body)
	next := func() (a gqlResponse, done bool) {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				if err == io.EOF {
					return a, true
				}
				t.Fatal(err)
			}
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				testutil.Must(t, json.Unmarshal([]byte(data), &a))
				return a, len(a.Errors) > 0 && a.Data == nil
			}
		}
	}
	return &clientSubscription{t: t, next: next, unsubscribe: cancel}
}

// nextN returns the next n events.
func (s *clientSubscription) nextN(n int) []gqlResponse {
	s.t.Helper()
	out := make([]gqlResponse, n)
	for i := range out {
		var done bool
		if out[i], done = s.next(); done || len(out[i].Errors) > 0 {
			s.t.Fatalf("the stream ended after %d events: %v", i, out[i].Errors)
		}
	}
	return out
}

// drain reads the stream to its end and returns the events and the error code.
func (s *clientSubscription) drain() (events []gqlResponse, code string) {
	s.t.Helper()
	for {
		a, done := s.next()
		if done {
			return events, a.code()
		}
		events = append(events, a)
	}
}

// values returns the value at a path of each event.
func (s *clientSubscription) values(events []gqlResponse, path string) []string {
	s.t.Helper()
	out := make([]string, len(events))
	for i := range events {
		out[i] = events[i].get(s.t, path)
	}
	return out
}

// waitForSubscriptions waits until there are n subscriptions.
func (b *bundle) waitForSubscriptions(t *testing.T, n int) {
	t.Helper()
	testutil.Eventually(t, fmt.Sprintf("%d subscriptions", n), func() bool { return b.Log.Subscribers() == n })
}

// waitForEventLog waits until all events have been published, so that a new subscription
// does not get them.
func (b *bundle) waitForEventLog(t *testing.T) {
	t.Helper()
	var last int64
	testutil.Must(t, b.DB.Read(t.Context()).Raw("SELECT MAX(seq) FROM events").Scan(&last).Error)
	testutil.Eventually(t, "all events to be published", func() bool { return b.Log.Head() >= last })
}

func (b *bundle) postTaskTitled(t *testing.T, c caller, title, members string) string {
	t.Helper()
	out := b.mustQuery(t, c, fmt.Sprintf(`mutation { postTask(input: {title: %q, description: "Do it.", %s}) { task { id } } }`, title, members))
	return out.get(t, "postTask.task.id")
}

// triggerEveryEvent triggers an event of each kind for the poster and the worker.
func (b *bundle) triggerEveryEvent(t *testing.T, c participants) {
	t.Helper()
	act := func(by caller, verb, id, more string) {
		t.Helper()
		b.mustQuery(t, by, fmt.Sprintf(`mutation { %s(input: {taskId: %q %s}) { task { id } } }`, verb, id, more))
	}
	id := b.postTask(t, c.poster, "budget: 5")
	act(c.worker, "acceptTask", id, "")
	act(c.worker, "releaseTask", id, "")
	act(c.worker, "acceptTask", id, "")
	act(c.worker, "completeTask", id, `, result: "the result"`)
	act(c.poster, "rateTask", id, ", score: 5")
	act(c.poster, "cancelTask", b.postTask(t, c.poster, "budget: 5"), "")
	b.postTask(t, c.poster, "budget: 5, openForMinutes: 1")
	b.Clock.Advance(2 * time.Minute)
	testutil.Must(t, b.Sweep(t.Context()))
	original := b.FakeRunner.ResultFunc
	b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
		return "", models.Errorf(models.ExecutionFailed, "the agent failed")
	}
	got := b.query(t, c.poster, fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "D", budget: 2}) { result } }`, c.worker.id))
	assertError(t, "a failed hire", got, models.ExecutionFailed, "")
	b.FakeRunner.ResultFunc = original
}
