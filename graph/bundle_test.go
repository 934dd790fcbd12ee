package graph

import (
	"bytes"
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

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// bundle is the GraphQL door on a fresh market, served on a socket.
type bundle struct {
	*markettest.Bundle
	server    *Server
	resolver  *Resolver
	hooks     *webhooks.Webhooks
	url       string
	readCount atomic.Int64 // statements that read the store; see count
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	return newBundleWith(t, ServerOptions{Introspection: true}, outbound.Options{})
}

// newBundleWith opens a door with options; its keys and its logger are the market's.
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
	o.Keys, o.Logger = b.Keys, b.Logger
	var err error
	o.Cache, err = NewCache(b.Market)
	testutil.Must(t, err)
	b.server, err = NewServer(b.resolver, o)
	testutil.Must(t, err)
	b.OnKeyRevoked = b.server.CloseKey

	b.countReads(t)
	ctx := context.WithoutCancel(t.Context())
	follow, stop := context.WithCancel(ctx)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		b.Log.Follow(follow)
	}()
	served := httptest.NewUnstartedServer(b.authenticate(b.server))
	served.Listener = smallBufferListener{served.Listener}
	served.Start()
	b.url = served.URL
	t.Cleanup(func() {
		b.server.Shutdown(ctx)
		served.Close()
		stop()
		<-followed
	})
	return b
}

// smallBufferListener gives connections small buffers: a client that does not read is felt
// after some kilobytes instead of megabytes.
type smallBufferListener struct{ net.Listener }

// Accept takes a connection.
func (n smallBufferListener) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = tcp.SetWriteBuffer(64 << 10)
	}
	return conn, err
}

// authenticate does what stands before the door: it finds out who is calling.
func (b *bundle) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := auth.WithRequest(r.Context(), &auth.Request{
			ID: "request", Address: "192.0.2.1", IdempotencyKey: r.Header.Get("Idempotency-Key"),
		})
		if key := r.Header.Get("X-Api-Key"); key != "" {
			actor, err := b.Keys.Authenticate(ctx, key)
			if err != nil {
				http.Error(w, err.Error(), http.StatusUnauthorized)
				return
			}
			ctx = auth.WithActor(ctx, actor)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// caller is an agent as its owner knows it; the zero value is a stranger without
// a key.
type caller struct{ id, key string }

// gqlResponse is what came back.
type gqlResponse struct {
	status int
	header http.Header
	Data   map[string]any
	Errors []gqlError
}

// gqlError is one error of an answer.
type gqlError struct {
	Message    string
	Path       []any
	Extensions map[string]any
}

// code is the code of the only error, empty when there is none.
func (a gqlResponse) code() string {
	if len(a.Errors) == 0 {
		return ""
	}
	code, _ := a.Errors[0].Extensions["code"].(string)
	return code
}

// get returns the value at a path such as "tasks.nodes.0.id" as text; null is
// "null", objects and lists are JSON.
func (a gqlResponse) get(t *testing.T, path string) string {
	t.Helper()
	var at any = a.Data
	for step := range strings.SplitSeq(path, ".") {
		switch within := at.(type) {
		case map[string]any:
			next, ok := within[step]
			if !ok {
				t.Fatalf("no %s of %s in %v", step, path, a.Data)
			}
			at = next
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(within) {
				t.Fatalf("no %s of %s in %v", step, path, a.Data)
			}
			at = within[i]
		default:
			t.Fatalf("no %s of %s in %v", step, path, a.Data)
		}
	}
	if text, ok := at.(string); ok {
		return text
	}
	text, err := json.Marshal(at)
	testutil.Must(t, err)
	return string(text)
}

// assertFields holds values to what they must be; pairs of path and text.
func (a gqlResponse) assertFields(t *testing.T, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := a.get(t, pairs[i]); got != pairs[i+1] {
			t.Errorf("%s is %s, want %s", pairs[i], got, pairs[i+1])
		}
	}
}

// query runs a document. Headers are pairs of name and value.
func (b *bundle) query(t *testing.T, c caller, document string, headers ...string) gqlResponse {
	t.Helper()
	body, err := json.Marshal(map[string]string{"query": document})
	testutil.Must(t, err)
	return b.send(t, c, http.MethodPost, "", body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// send sends a request as it is.
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

// mustQuery runs a document that must succeed.
func (b *bundle) mustQuery(t *testing.T, c caller, document string, headers ...string) gqlResponse {
	t.Helper()
	out := b.query(t, c, document, headers...)
	if len(out.Errors) > 0 || out.Data == nil {
		t.Fatalf("%s\nanswered %v", document, out.Errors)
	}
	return out
}

// assertError wants one error with a code, and no data where it happened.
func assertError(t *testing.T, what string, a gqlResponse, code models.Code, field string) {
	t.Helper()
	if len(a.Errors) != 1 || a.code() != string(code) {
		t.Errorf("%s: answered %v with %v, want %s", what, a.Data, a.Errors, code)
		return
	}
	if got, _ := a.Errors[0].Extensions["field"].(string); got != field {
		t.Errorf("%s: the field at fault is %q, want %q", what, got, field)
	}
	for name, value := range a.Data {
		if value != nil {
			t.Errorf("%s: %s is %v beside the error", what, name, value)
		}
	}
}

// registerAgent registers an agent; members are inputs beside its name.
func (b *bundle) registerAgent(t *testing.T, members string) caller {
	t.Helper()
	out := b.mustQuery(t, caller{}, fmt.Sprintf(`mutation { registerAgent(input: {name: "Agent", %s}) { apiKey agent { id } } }`, members))
	return caller{id: out.get(t, "registerAgent.agent.id"), key: out.get(t, "registerAgent.apiKey")}
}

// postTask posts a task and returns its id; members are inputs beside its texts.
func (b *bundle) postTask(t *testing.T, c caller, members string) string {
	t.Helper()
	out := b.mustQuery(t, c, fmt.Sprintf(`mutation { postTask(input: {title: "Task", description: "Do it.", %s}) { task { id } } }`, members))
	return out.get(t, "postTask.task.id")
}

// completedTask posts a task that the worker completes, and returns its id.
func (b *bundle) completedTask(t *testing.T, poster, worker caller) string {
	t.Helper()
	id := b.postTask(t, poster, "budget: 5")
	b.mustQuery(t, worker, fmt.Sprintf(`mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, id))
	b.mustQuery(t, worker, fmt.Sprintf(`mutation { completeTask(input: {taskId: %q, result: "the result"}) { task { id } } }`, id))
	return id
}
