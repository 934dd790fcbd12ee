package app

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/testutil"
)

// traceCollector records the spans that it receives.
type traceCollector struct {
	mu      sync.Mutex
	spans   []*trace.Span
	payload []byte // all request bodies
}

// newTraceCollector starts a collector for OTLP over HTTP.
func newTraceCollector(t *testing.T) (*traceCollector, string) {
	t.Helper()
	c := &traceCollector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
			http.Error(w, "no traces", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.payload = append(c.payload, body...)
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(server.Close)
	return c, server.URL
}

// spanPath returns the names of the ancestors of a span and of the span itself.
func (c *traceCollector) spanPath(span *trace.Span) string {
	path := span.GetName()
	for {
		var parent *trace.Span
		for _, s := range c.spans {
			if string(s.GetSpanId()) == string(span.GetParentSpanId()) {
				parent = s
			}
		}
		if parent == nil {
			return path
		}
		span, path = parent, parent.GetName()+" > "+path
	}
}

// TestTraces checks that the trace of a client contains everything that its postTask and
// its hire cause, up to the first webhook attempt. The next attempt is a separate
// trace that links to the first. Spans contain no secrets.
func TestTraces(t *testing.T) {
	t.Parallel()
	c, endpoint := newTraceCollector(t)
	receiver := httptest.NewUnstartedServer(http.NotFoundHandler())
	receiver.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	receiver.StartTLS() // every attempt fails, its certificate is not trusted
	t.Cleanup(receiver.Close)
	b := newTestServer(t, func(c *config.Config) {
		c.OTLPEndpoint, c.WebhookRetries = endpoint, []time.Duration{10 * time.Millisecond}
		c.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	stop := b.start(t)
	worker := b.register(t, fmt.Sprintf(`,"capabilities":["work"],"webhook_url":"%s/secret-path","endpoint_url":"%[1]s/secret-path"`, receiver.URL))
	_, id, _ := strings.Cut(b.do(t, http.MethodGet, "/api/agents/me", "", "X-API-Key", worker).body, `"id":"`)
	id, _, _ = strings.Cut(id, `"`)
	poster := b.register(t, "")
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	const document = `mutation SecretName { postTask(input: {title: \"Secret title\", description: \"Secret task\", budget: 5, requiredCapabilities: [\"work\"]}) { task { id } } }`
	got := b.do(t, http.MethodPost, "/graphql", `{"query":"`+document+`"}`, "X-API-Key", poster,
		"traceparent", "00-"+trace+"-"+parent+"-01", "tracestate", "them=Secret")
	if got.StatusCode != http.StatusOK || strings.Contains(got.body, "errors") {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	b.do(t, http.MethodGet, "/api/wallet", "", "X-API-Key", poster, "traceparent", "00-"+trace+"-"+parent+"-01")
	b.do(t, http.MethodPost, "/api/execute", fmt.Sprintf(`{"agent_id":%q,"task_description":"Secret task","budget":20}`, id), "X-API-Key", poster,
		"traceparent", "00-"+trace+"-"+parent+"-01")
	testutil.Eventually(t, "two attempts", func() bool {
		return strings.Contains(b.do(t, http.MethodPost, "/graphql", `{"query":"{ viewer { webhook { deliveries { nodes { status } } } } }"}`, "X-API-Key", worker).body, "FAILED")
	})
	stop()
	if err := b.tracer.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	paths, links := map[string]int{}, 0
	for _, span := range c.spans {
		switch path := c.spanPath(span); {
		case hex.EncodeToString(span.GetTraceId()) == trace:
			paths[path]++
		case path == "deliver webhook":
			for _, link := range span.GetLinks() {
				if hex.EncodeToString(link.GetTraceId()) == trace {
					links++
				}
			}
		}
	}
	const post = "POST graphql > mutation postTask > Mutation.postTask > transaction"
	const execute = "POST /api/execute > transaction"
	const deliver = post + " > match webhooks > transaction > deliver webhook"
	for _, path := range []string{
		"GET /api/wallet", "POST graphql", "POST graphql > mutation postTask", "POST graphql > mutation postTask > Mutation.postTask", post, post + " > match webhooks",
		post + " > match webhooks > transaction", deliver, deliver + " > POST webhook", deliver + " > transaction",
		"POST /api/execute", "POST /api/execute > run endpoint", execute, // once for the hire and once for the settlement
	} {
		want := 1
		if path == execute {
			want = 2
		}
		if paths[path] != want {
			t.Errorf("got %d spans %s, want %d", paths[path], path, want)
		}
		delete(paths, path)
	}
	if len(paths) > 0 {
		t.Errorf("unexpected spans: %v", paths)
	}
	if links != 1 {
		t.Errorf("got %d attempts with a link to the trace, want 1", links)
	}
	for _, secret := range []string{worker, poster, "Secret", "secret-path"} {
		if strings.Contains(string(c.payload), secret) {
			t.Errorf("the spans contain %q", secret)
		}
	}
}

// TestTraces_webSocketOperations checks that each operation of a WebSocket is a separate
// trace.
func TestTraces_webSocketOperations(t *testing.T) {
	t.Parallel()
	c, endpoint := newTraceCollector(t)
	b := newTestServer(t, func(c *config.Config) { c.OTLPEndpoint = endpoint })
	conn, response, err := (&websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}).DialContext(t.Context(), strings.Replace(b.url, "http", "ws", 1)+"/graphql", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	send := func(message, until string) {
		t.Helper()
		if err := conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
			t.Fatal(err)
		}
		for text := ""; until != "" && !strings.Contains(text, until); {
			_, data, err := conn.ReadMessage()
			if text = string(data); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(`{"type":"connection_init"}`, "connection_ack")
	for i := range 2 {
		send(fmt.Sprintf(`{"type":"subscribe","id":"%d","payload":{"query":"{ marketplace { version } }"}}`, i), "complete")
	}
	poster, err := b.market.Register(t.Context(), market.RegisterAgentInput{Name: "Bot"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.market.Post(t.Context(), auth.Actor{AgentID: poster.Agent.ID}, market.PostTaskInput{Title: "T", Description: "D", Budget: 2}); err != nil {
		t.Fatal(err)
	}
	send(`{"type":"subscribe","id":"s","payload":{"query":"subscription { taskPosted(after: \"0\") { cursor } }"}}`, `"cursor"`) // the subscription stays open
	if err := b.tracer.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	roots := map[string]int{}
	traces := map[string]bool{}
	for _, span := range c.spans {
		if len(span.GetParentSpanId()) == 0 {
			roots[span.GetName()]++
			traces[string(span.GetTraceId())] = true
		}
	}
	if roots["GET graphql"] != 1 || roots["query marketplace"] != 2 || roots["subscription taskPosted"] != 1 || len(traces) != 4 {
		t.Errorf("got %d traces with roots %v", len(traces), roots)
	}
}

// TestTraces_disabled checks that without a collector no span is recorded and the
// traceparent header is ignored.
func TestTraces_disabled(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	if b.tracer != nil {
		t.Error("got a tracer")
	}
	if _, span := b.tracer.StartRequest(httptest.NewRequest(http.MethodGet, "/", http.NoBody), "GET", "other"); span.IsRecording() {
		t.Error("the span is recording")
	}
	b.register(t, `,"capabilities":["work"],"webhook_url":"https://agent.example.com/hook"`)
	got := b.do(t, http.MethodPost, "/api/tasks", `{"title":"T","description":"D","budget":2,"required_capabilities":["work"]}`, "X-API-Key", b.register(t, ""),
		"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if got.StatusCode != http.StatusOK {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	var jobs, traced int64
	err := b.db.Read(t.Context()).Raw("SELECT COUNT(*), COUNT(*) FILTER (WHERE CAST(args AS TEXT) LIKE '%trace%') FROM river_job").Row().Scan(&jobs, &traced)
	if err != nil || jobs != 1 || traced != 0 {
		t.Errorf("%d of %d jobs contain a trace (%v)", traced, jobs, err)
	}
}
