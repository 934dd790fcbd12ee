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
	d := startServer(t, nil)
	const start = ":\n\n"
	for name, row := range map[string]struct{ document, body string }{
		"a subscription": {
			"subscription { numbers(count: 2) }",
			start + nextEvent(`{"data":{"numbers":0}}`) + nextEvent(`{"data":{"numbers":1}}`) + completeEvent,
		},
		"a query": {"{ hello }", start + nextEvent(`{"data":{"hello":"world"}}`) + completeEvent},
		"a panic": {
			"subscription { panic }",
			start + nextEvent(`{"data":{"panic":0}}`) + nextEvent(`{"errors":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`) + completeEvent,
		},
		"one that is refused": {
			"subscription { refused }",
			start + nextEvent(`{"errors":[{"message":"not for you","extensions":{"code":"FORBIDDEN"}}]}`) + completeEvent,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := d.post(t, row.document, "Accept", eventStreamType)
			if got.status != http.StatusOK || got.body != row.body {
				t.Errorf("answered %d\n%s\nwant\n%s", got.status, got.body, row.body)
			}
			for name, want := range map[string]string{
				"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no", "Cache-Control": "no-cache",
			} {
				if is := got.header.Get(name); is != want {
					t.Errorf("%s is %q, want %q", name, is, want)
				}
			}
		})
	}
	t.Run("by GET, as browsers do", func(t *testing.T) {
		t.Parallel()
		got := d.do(t, http.MethodGet, "?query={hello}", "", "Accept", eventStreamType)
		if want := start + nextEvent(`{"data":{"hello":"world"}}`) + completeEvent; got.body != want {
			t.Errorf("answered %s, want %s", got.body, want)
		}
	})
}

func TestEventStream_rejectsInvalidRequests(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	for name, row := range map[string]struct {
		method, query, body string
		status              int
	}{
		"an invalid document": {http.MethodPost, "", requestBody("{ nothing }"), http.StatusBadRequest},
		"broken JSON":         {http.MethodPost, "", "{", http.StatusBadRequest},
		"a mutation by GET":   {http.MethodGet, "?query=mutation{change}", "", http.StatusMethodNotAllowed},
		"another method":      {http.MethodDelete, "", "", http.StatusMethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := d.do(t, row.method, row.query, row.body, "Accept", eventStreamType, "Content-Type", jsonType)
			if got.status != row.status || !strings.HasPrefix(got.header.Get("Content-Type"), jsonType) || !strings.HasPrefix(got.body, `{"errors":[`) {
				t.Errorf("answered %+v, want status %d and JSON", got, row.status)
			}
		})
	}
}

// eventReader is an event stream that is read as it comes.
type eventReader struct {
	t    testing.TB
	body *bufio.Reader
}

// openSilentStream opens a stream that goes on, with an API key or an empty one.
func (d *testServer) openSilentStream(ctx context.Context, t *testing.T, key string) *eventReader {
	t.Helper()
	return d.openStream(ctx, t, key, "subscription { silence }")
}

func (d *testServer) openStream(ctx context.Context, t *testing.T, key, document string) *eventReader {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL+"/graphql", strings.NewReader(requestBody(document)))
	testutil.Must(t, err)
	request.Header = http.Header{"Content-Type": {jsonType}, "Accept": {eventStreamType}, "X-Api-Key": {key}}
	response, err := d.Client().Do(request)
	testutil.Must(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return &eventReader{t, bufio.NewReader(response.Body)}
}

// readAll reads to the end and drops the first sign of life.
func (r *eventReader) readAll() string {
	r.t.Helper()
	var text strings.Builder
	_, err := r.body.WriteTo(&text)
	testutil.Must(r.t, err)
	return strings.TrimPrefix(text.String(), ":\n\n")
}

// expectHeartbeats wants so many comments next.
func (r *eventReader) expectHeartbeats(times int) {
	r.t.Helper()
	for range times {
		for _, want := range []string{":\n", "\n"} {
			if line, err := r.body.ReadString('\n'); err != nil || line != want {
				r.t.Fatalf("read %q (%v), want %q", line, err, want)
			}
		}
	}
}

func TestEventStream_heartbeat(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	d.openSilentStream(t.Context(), t, "").expectHeartbeats(3)
}

// TestEventStream_revokedKeyAndShutdown: a client is told when its key is revoked, and sees no
// complete event when the server stops, so that it comes back.
func TestEventStream_revokedKeyAndShutdown(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	revoked, other := d.openSilentStream(t.Context(), t, "k"), d.openSilentStream(t.Context(), t, "")
	d.transports.CloseKey("k")
	const told = `{"errors":[{"message":"Unauthorized: the API key was revoked","extensions":{"code":"UNAUTHENTICATED"}}]}`
	if got := revoked.readAll(); got != nextEvent(told)+completeEvent {
		t.Errorf("the revoked key's stream ended with %q", got)
	}
	d.transports.Shutdown(t.Context())
	if got := other.readAll(); got != "" {
		t.Errorf("at the server's end the stream ended with %q", got)
	}
	if n := d.transports.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestEventStream_clientDisconnects(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	d.openSilentStream(ctx, t, "")
	cancel()
	testutil.Eventually(t, "its stream is gone", func() bool { return d.transports.Connections() == 0 })
}

func TestEventStream_slowReader(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", d.Listener.Addr().String())
	testutil.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("GET /graphql?query=subscription{flood} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"))
	testutil.Must(t, err)
	testutil.Eventually(t, "it has a stream", func() bool { return d.transports.Connections() == 1 })
	testutil.Eventually(t, "the stream is cut off", func() bool { return d.transports.Connections() == 0 })
}
