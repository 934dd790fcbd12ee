package graph

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/graph/cache"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// bundle is a GraphQL server for a new market.
type bundle struct {
	*markettest.Bundle
	server    *Server
	resolver  *Resolver
	hooks     *webhooks.Webhooks
	url       string
	readCount atomic.Int64 // read statements, see countReads
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	return newBundleWith(t, ServerOptions{Introspection: true}, outbound.Options{})
}

// newBundleWith returns a server with options. It sets the keys, the cache and, unless
// given, the logger.
func newBundleWith(t *testing.T, o ServerOptions, calls outbound.Options) *bundle {
	t.Helper()
	b := &bundle{}
	calls.Resolver = markettest.OfflineResolver()
	client := outbound.New(calls)
	b.Bundle = markettest.New(t, func(deps *market.Deps) {
		b.hooks = webhooks.New(webhooks.Options{
			DB: deps.DB, Events: deps.Events, Client: client, Cipher: deps.Cipher, MarketplaceURL: "https://agentmarket.space", Now: deps.Now, Logger: deps.Logger,
		})
		deps.Webhooks, deps.CheckURL, deps.CheckHost = b.hooks, client.CheckURL, client.CheckHost
	})
	b.resolver = &Resolver{Market: b.Market, Events: b.Log, Webhooks: b.hooks, PublicURL: "https://market.example.com", Version: "1.2.3"}
	o.Keys, o.Logger = b.Keys, cmp.Or(o.Logger, b.Logger)
	var err error
	o.Cache, err = cache.New(cache.Options{DB: b.DB, Now: b.Clock.Now, NextDeadline: b.NextDeadline})
	testutil.Must(t, err)
	b.server, err = NewServer(b.resolver, o)
	testutil.Must(t, err)
	b.OnKeyRevoked = b.server.CloseKey

	b.countReads(t)
	ctx := context.WithoutCancel(t.Context())
	followCtx, stop := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.Log.Follow(followCtx)
	}()
	server := httptest.NewUnstartedServer(b.authenticate(b.server))
	server.Listener = smallBufferListener{server.Listener}
	server.Start()
	b.url = server.URL
	t.Cleanup(func() {
		b.server.Shutdown(ctx)
		server.Close()
		stop()
		<-stopped
	})
	return b
}

// smallBufferListener gives connections small buffers, so that writes to a client that
// does not read block after kilobytes instead of megabytes.
type smallBufferListener struct{ net.Listener }

// Accept implements net.Listener.
func (n smallBufferListener) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = tcp.SetWriteBuffer(64 << 10)
	}
	return conn, err
}

// authenticate sets the caller in the context, as the middleware of the server does.
func (b *bundle) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := auth.WithRequest(r.Context(), &auth.Request{
			ID: "request", Address: "192.0.2.1", IdempotencyKey: r.Header.Get("Idempotency-Key"),
		})
		if key := r.Header.Get("X-Api-Key"); key != "" {
			actor, err := b.Keys.Authenticate(ctx, key)
			if err != nil {
				actor, err = b.AuthenticateReplaced(ctx, key)
			}
			if err != nil {
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"errors":[{"extensions":{"code":"UNAUTHENTICATED"}}]}`))
				return
			}
			if ctx = auth.WithActor(ctx, actor); actor.Replaced {
				ctx = auth.WithReplaced(ctx, actor)
			}
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// caller is an agent with its API key. The zero value is an anonymous caller.
type caller struct{ id, key string }

// gqlResponse is a parsed response.
type gqlResponse struct {
	status int
	header http.Header
	Data   map[string]any
	Errors []gqlError

	Extensions map[string]any
}

// gqlError is an error in a response.
type gqlError struct {
	Message    string
	Path       []any
	Extensions map[string]any
}

// code returns the code of the first error, "" if there is none.
func (a gqlResponse) code() string {
	if len(a.Errors) == 0 {
		return ""
	}
	code, _ := a.Errors[0].Extensions["code"].(string)
	return code
}

// get returns the value at a path such as "tasks.nodes.0.id": a string as it is, any other
// value as JSON.
func (a gqlResponse) get(t *testing.T, path string) string {
	t.Helper()
	var at any = a.Data
	for step := range strings.SplitSeq(path, ".") {
		switch value := at.(type) {
		case map[string]any:
			next, ok := value[step]
			if !ok {
				t.Fatalf("no %s of %s in %v %v", step, path, a.Data, a.Errors)
			}
			at = next
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(value) {
				t.Fatalf("no %s of %s in %v %v", step, path, a.Data, a.Errors)
			}
			at = value[i]
		default:
			t.Fatalf("no %s of %s in %v %v", step, path, a.Data, a.Errors)
		}
	}
	if text, ok := at.(string); ok {
		return text
	}
	text, err := json.Marshal(at)
	testutil.Must(t, err)
	return string(text)
}

// assertFields compares values; pairs are paths and wanted texts.
func (a gqlResponse) assertFields(t *testing.T, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := a.get(t, pairs[i]); got != pairs[i+1] {
			t.Errorf("%s is %s, want %s", pairs[i], got, pairs[i+1])
		}
	}
}

// query sends a document. headers are pairs of name and value.
func (b *bundle) query(t *testing.T, c caller, document string, headers ...string) gqlResponse {
	t.Helper()
	body, err := json.Marshal(map[string]string{"query": document})
	testutil.Must(t, err)
	return b.send(t, c, http.MethodPost, "", body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// send sends a request.
func (b *bundle) send(t *testing.T, c caller, method, query string, body []byte, headers ...string) gqlResponse {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, b.url+query, bytes.NewReader(body))
	testutil.Must(t, err)
	if c.key != "" {
		request.Header.Set("X-Api-Key", c.key)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	testutil.Must(t, err)
	defer func() { testutil.Must(t, response.Body.Close()) }()
	raw, err := io.ReadAll(response.Body)
	testutil.Must(t, err)
	out := gqlResponse{status: response.StatusCode, header: response.Header}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("status %d: %v in %s", response.StatusCode, err, raw)
	}
	return out
}

// mustQuery sends a document and fails the test if there are errors.
func (b *bundle) mustQuery(t *testing.T, c caller, document string, headers ...string) gqlResponse {
	t.Helper()
	out := b.query(t, c, document, headers...)
	if len(out.Errors) > 0 || out.Data == nil {
		t.Fatalf("%s\nfailed with %v", document, out.Errors)
	}
	return out
}

// assertError checks for a single error with a code and a field, and for no data.
func assertError(t *testing.T, what string, a gqlResponse, code models.Code, field string) {
	t.Helper()
	if len(a.Errors) != 1 || a.code() != string(code) {
		t.Errorf("%s: got %v with %v, want %s", what, a.Data, a.Errors, code)
		return
	}
	if got, _ := a.Errors[0].Extensions["field"].(string); got != field {
		t.Errorf("%s: the invalid field is %q, want %q", what, got, field)
	}
	for name, value := range a.Data {
		if value != nil {
			t.Errorf("%s: %s is %v in addition to the error", what, name, value)
		}
	}
}

// registerAgent registers an agent; members are its other inputs besides the name.
func (b *bundle) registerAgent(t *testing.T, members string) caller {
	t.Helper()
	out := b.mustQuery(t, caller{}, fmt.Sprintf(`mutation { registerAgent(input: {name: "Agent", %s}) { apiKey agent { id } } }`, members))
	return caller{id: out.get(t, "registerAgent.agent.id"), key: out.get(t, "registerAgent.apiKey")}
}

// postTask posts a task and returns its id; members are its inputs besides the texts.
func (b *bundle) postTask(t *testing.T, c caller, members string) string {
	t.Helper()
	out := b.mustQuery(t, c, fmt.Sprintf(`mutation { postTask(input: {title: "Task", description: "Do it.", %s}) { task { id } } }`, members))
	return out.get(t, "postTask.task.id")
}

// completedTask posts a task, completes it as the worker, and returns its id.
func (b *bundle) completedTask(t *testing.T, poster, worker caller) string {
	t.Helper()
	id := b.postTask(t, poster, "budget: 5")
	b.mustQuery(t, worker, fmt.Sprintf(`mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, id))
	b.mustQuery(t, worker, fmt.Sprintf(`mutation { completeTask(input: {taskId: %q, result: "the result"}) { task { id } } }`, id))
	return id
}
