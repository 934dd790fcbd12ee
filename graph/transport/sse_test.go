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
)

const (
	eventStream = "text/event-stream"
	complete    = "event: complete\ndata:\n\n"
)

func next(payload string) string { return "event: next\ndata: " + payload + "\n\n" }

func TestEventStream(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	const start = ":\n\n"
	for name, row := range map[string]struct{ document, body string }{
		"a subscription": {
			"subscription { numbers(count: 2) }",
			start + next(`{"data":{"numbers":0}}`) + next(`{"data":{"numbers":1}}`) + complete,
		},
		"a query": {"{ hello }", start + next(`{"data":{"hello":"world"}}`) + complete},
		"a panic": {
			"subscription { panic }",
			start + next(`{"data":{"panic":0}}`) + next(`{"errors":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`) + complete,
		},
		"one that is refused": {
			"subscription { refused }",
			start + next(`{"errors":[{"message":"not for you","extensions":{"code":"FORBIDDEN"}}]}`) + complete,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := d.post(t, row.document, "Accept", eventStream)
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
		got := d.ask(t, http.MethodGet, "?query={hello}", "", "Accept", eventStream)
		if want := start + next(`{"data":{"hello":"world"}}`) + complete; got.body != want {
			t.Errorf("answered %s, want %s", got.body, want)
		}
	})
}

func TestEventStreamIsRefused(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	for name, row := range map[string]struct {
		method, query, body string
		status              int
	}{
		"an invalid document": {http.MethodPost, "", quoted("{ nothing }"), http.StatusBadRequest},
		"broken JSON":         {http.MethodPost, "", "{", http.StatusBadRequest},
		"a mutation by GET":   {http.MethodGet, "?query=mutation{change}", "", http.StatusMethodNotAllowed},
		"another method":      {http.MethodDelete, "", "", http.StatusMethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := d.ask(t, row.method, row.query, row.body, "Accept", eventStream, "Content-Type", asJSON)
			if got.status != row.status || !strings.HasPrefix(got.header.Get("Content-Type"), asJSON) || !strings.HasPrefix(got.body, `{"errors":[`) {
				t.Errorf("answered %+v, want status %d and JSON", got, row.status)
			}
		})
	}
}

// reading is an event stream that is read as it comes.
type reading struct {
	t    testing.TB
	body *bufio.Reader
}

// listen opens a stream that goes on, with an API key or an empty one.
func (d *door) listen(ctx context.Context, t *testing.T, key string) *reading {
	t.Helper()
	return d.subscribe(ctx, t, key, "subscription { silence }")
}

func (d *door) subscribe(ctx context.Context, t *testing.T, key, document string) *reading {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL+"/graphql", strings.NewReader(quoted(document)))
	must(t, err)
	request.Header = http.Header{"Content-Type": {asJSON}, "Accept": {eventStream}, "X-Api-Key": {key}}
	response, err := d.Client().Do(request)
	must(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return &reading{t, bufio.NewReader(response.Body)}
}

// rest reads to the end and drops the first sign of life.
func (r *reading) rest() string {
	r.t.Helper()
	var text strings.Builder
	_, err := r.body.WriteTo(&text)
	must(r.t, err)
	return strings.TrimPrefix(text.String(), ":\n\n")
}

// showsLife wants so many comments next.
func (r *reading) showsLife(times int) {
	r.t.Helper()
	for range times {
		for _, want := range []string{":\n", "\n"} {
			if line, err := r.body.ReadString('\n'); err != nil || line != want {
				r.t.Fatalf("read %q (%v), want %q", line, err, want)
			}
		}
	}
}

func TestEventStreamShowsLife(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	d.listen(t.Context(), t, "").showsLife(3)
}

// TestEventStreamEnds: a client is told when its key is revoked, and sees no
// complete event when the server stops, so that it comes back.
func TestEventStreamEnds(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	revoked, other := d.listen(t.Context(), t, "k"), d.listen(t.Context(), t, "")
	d.transports.CloseKey("k")
	const told = `{"errors":[{"message":"Unauthorized: the API key was revoked","extensions":{"code":"UNAUTHENTICATED"}}]}`
	if got := revoked.rest(); got != next(told)+complete {
		t.Errorf("the revoked key's stream ended with %q", got)
	}
	d.transports.Shutdown(t.Context())
	if got := other.rest(); got != "" {
		t.Errorf("at the server's end the stream ended with %q", got)
	}
	if n := d.transports.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestEventStreamOfClientThatIsGone(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	d.listen(ctx, t, "")
	cancel()
	await(t, "its stream is gone", func() bool { return d.transports.Connections() == 0 })
}

func TestEventStreamOfSlowReader(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", d.Listener.Addr().String())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("GET /graphql?query=subscription{flood} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"))
	must(t, err)
	await(t, "it has a stream", func() bool { return d.transports.Connections() == 1 })
	await(t, "the stream is cut off", func() bool { return d.transports.Connections() == 0 })
}
