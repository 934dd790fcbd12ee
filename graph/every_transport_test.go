package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/testutil"
)

// document is a document with the JSON of its variables, which may be empty.
type document struct{ text, variables string }

func (d document) body(t *testing.T) []byte {
	t.Helper()
	request := map[string]any{"query": d.text}
	if d.variables != "" {
		request["variables"] = json.RawMessage(d.variables)
	}
	body, err := json.Marshal(request)
	testutil.Must(t, err)
	return body
}

// sendEverywhere sends a document over every transport, and returns the first response of
// each.
func (b *bundle) sendEverywhere(t *testing.T, c caller, d document) map[string]gqlResponse {
	t.Helper()
	query := url.Values{"query": {d.text}, "variables": {d.variables}}
	return map[string]gqlResponse{
		"POST":                 b.send(t, c, http.MethodPost, "", d.body(t), "Content-Type", "application/json"),
		"GET":                  b.send(t, c, http.MethodGet, "?"+query.Encode(), nil),
		"server-sent events":   b.firstEvent(t, c, d),
		"graphql-transport-ws": b.firstMessage(t, c, d, "graphql-transport-ws", "subscribe"),
		"graphql-ws":           b.firstMessage(t, c, d, "graphql-ws", "start"),
	}
}

// firstEvent sends a document, accepting an event stream, and returns its first event or the
// JSON response.
func (b *bundle) firstEvent(t *testing.T, c caller, d document) (a gqlResponse) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(d.body(t)))
	testutil.Must(t, err)
	request.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"text/event-stream"}}
	if c.key != "" {
		request.Header.Set("X-Api-Key", c.key)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	testutil.Must(t, err)
	defer func() { testutil.Must(t, response.Body.Close()) }()
	text, err := io.ReadAll(response.Body)
	testutil.Must(t, err)
	if _, event, streamed := strings.Cut(string(text), "data: "); streamed {
		first, _, _ := strings.Cut(event, "\n")
		text = []byte(first)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("status %d: %v in %s", response.StatusCode, err, text)
	}
	return a
}

// firstMessage starts an operation on a new socket and returns the first response.
func (b *bundle) firstMessage(t *testing.T, c caller, d document, protocol, start string) (a gqlResponse) {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{protocol}}
	header := http.Header{}
	if c.key != "" {
		header.Set("X-Api-Key", c.key)
	}
	conn, response, err := dialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.url, "http"), header)
	testutil.Must(t, err)
	testutil.Must(t, response.Body.Close())
	defer func() { _ = conn.Close() }()
	testutil.Must(t, conn.SetReadDeadline(time.Now().Add(testutil.Timeout)))
	for _, text := range []string{`{"type":"connection_init"}`, `{"id":"1","type":"` + start + `","payload":` + string(d.body(t)) + `}`} {
		testutil.Must(t, conn.WriteMessage(websocket.TextMessage, []byte(text)))
	}
	for {
		var message struct {
			Type    string
			Payload json.RawMessage
		}
		testutil.Must(t, conn.ReadJSON(&message))
		switch message.Type {
		case "connection_ack", "ka":
		case "next", "data":
			testutil.Must(t, json.Unmarshal(message.Payload, &a))
			return a
		case "error":
			if json.Unmarshal(message.Payload, &a.Errors) != nil { // the older protocol has one error
				a.Errors = make([]gqlError, 1)
				testutil.Must(t, json.Unmarshal(message.Payload, &a.Errors[0]))
			}
			return a
		default:
			t.Fatalf("%s: got message %s %s", protocol, message.Type, message.Payload)
		}
	}
}
