package transport_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
)

const (
	eventStreamType = "text/event-stream"
	completeEvent   = "event: complete\ndata:\n\n"
)

func nextEvent(payload string) string { return "event: next\ndata: " + payload + "\n\n" }

func TestEventStream(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	const start = ":\n\n"
	for name, tt := range map[string]struct{ document, body string }{
		"subscription": {
			"subscription { numbers(count: 2) }",
			start + nextEvent(`{"data":{"numbers":0}}`) + nextEvent(`{"data":{"numbers":1}}`) + completeEvent,
		},
		"query": {"{ hello }", start + nextEvent(`{"data":{"hello":"world"}}`) + completeEvent},
		"panic": {
			"subscription { panic }",
			start + nextEvent(`{"data":{"panic":0}}`) + nextEvent(`{"errors":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`) + completeEvent,
		},
		"forbidden": {
			"subscription { refused }",
			start + nextEvent(`{"errors":[{"message":"not for you","extensions":{"code":"FORBIDDEN"}}]}`) + completeEvent,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := server.post(t, tt.document, "Accept", eventStreamType)
			if got.status != http.StatusOK || got.body != tt.body {
				t.Errorf("got %d\n%s\nwant\n%s", got.status, got.body, tt.body)
			}
			for name, want := range map[string]string{
				"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no", "Cache-Control": "no-store", "Vary": "Accept",
			} {
				if value := got.header.Get(name); value != want {
					t.Errorf("%s: got %q, want %q", name, value, want)
				}
			}
		})
	}
	t.Run("GET, as sent by browsers", func(t *testing.T) {
		t.Parallel()
		got := server.do(t, http.MethodGet, "?query={hello}", "", "Accept", eventStreamType)
		if want := start + nextEvent(`{"data":{"hello":"world"}}`) + completeEvent; got.body != want {
			t.Errorf("got %s, want %s", got.body, want)
		}
	})
}

func TestEventStream_rejectsInvalidRequests(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	for name, tt := range map[string]struct {
		method, query, body string
		status              int
	}{
		"invalid document":   {http.MethodPost, "", requestBody("{ nothing }"), http.StatusBadRequest},
		"broken JSON":        {http.MethodPost, "", "{", http.StatusBadRequest},
		"mutation by GET":    {http.MethodGet, "?query=mutation{change}", "", http.StatusMethodNotAllowed},
		"unsupported method": {http.MethodDelete, "", "", http.StatusMethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := server.do(t, tt.method, tt.query, tt.body, "Accept", eventStreamType, "Content-Type", jsonType)
			if got.status != tt.status || !strings.HasPrefix(got.header.Get("Content-Type"), jsonType) || !strings.HasPrefix(got.body, `{"errors":[`) {
				t.Errorf("got %+v, want status %d and JSON", got, tt.status)
			}
		})
	}
}

// eventReader reads an open event stream.
type eventReader struct {
	t    testing.TB
	body *bufio.Reader
}

// openSilentStream opens a stream without events. key may be empty.
func (server *testServer) openSilentStream(ctx context.Context, t *testing.T, key string) *eventReader {
	t.Helper()
	return server.openStream(ctx, t, key, "subscription { silence }")
}

func (server *testServer) openStream(ctx context.Context, t *testing.T, key, document string) *eventReader {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/graphql", strings.NewReader(requestBody(document)))
	testutil.Must(t, err)
	request.Header = http.Header{"Content-Type": {jsonType}, "Accept": {eventStreamType}, "X-Api-Key": {key}}
	response, err := server.Client().Do(request)
	testutil.Must(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return &eventReader{t, bufio.NewReader(response.Body)}
}

// readAll reads to the end and removes the first heartbeat.
func (r *eventReader) readAll() string {
	r.t.Helper()
	var text strings.Builder
	_, err := r.body.WriteTo(&text)
	testutil.Must(r.t, err)
	return strings.TrimPrefix(text.String(), ":\n\n")
}

// expectHeartbeats reads the next n heartbeats.
func (r *eventReader) expectHeartbeats(n int) {
	r.t.Helper()
	for range n {
		for _, want := range []string{":\n", "\n"} {
			if line, err := r.body.ReadString('\n'); err != nil || line != want {
				r.t.Fatalf("read %q (%v), want %q", line, err, want)
			}
		}
	}
}

func TestEventStream_heartbeat(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	server.openSilentStream(t.Context(), t, "").expectHeartbeats(3)
}

// TestEventStream_revokedKeyAndShutdown checks that a client gets an error when its
// key is revoked, and no complete event on shutdown, so that it reconnects.
func TestEventStream_revokedKeyAndShutdown(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	revoked, other := server.openSilentStream(t.Context(), t, "k"), server.openSilentStream(t.Context(), t, "")
	server.transports.CloseKey("k")
	const revokedErr = `{"errors":[{"message":"Unauthorized: the API key was revoked","extensions":{"code":"UNAUTHENTICATED"}}]}`
	if got := revoked.readAll(); got != nextEvent(revokedErr)+completeEvent {
		t.Errorf("stream of the revoked key ended with %q", got)
	}
	server.transports.Shutdown(t.Context())
	if got := other.readAll(); got != "" {
		t.Errorf("stream ended with %q on shutdown", got)
	}
	if n := server.transports.Connections(); n != 0 {
		t.Errorf("%d open connections", n)
	}
}

func TestEventStream_clientDisconnects(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	server.openSilentStream(ctx, t, "")
	cancel()
	testutil.Eventually(t, "the stream to close", func() bool { return server.transports.Connections() == 0 })
}

func TestEventStream_slowReader(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	testutil.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("GET /graphql?query=subscription{flood} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"))
	testutil.Must(t, err)
	testutil.Eventually(t, "the stream to open", func() bool { return server.transports.Connections() == 1 })
	testutil.Eventually(t, "the stream to be cut off", func() bool { return server.transports.Connections() == 0 })
}
