package compat

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"agentmarket.space/server/graph"
	"agentmarket.space/server/graph/cache"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// bundle is the REST API on a new market, served over HTTP.
type bundle struct {
	*markettest.Bundle
	hooks   *webhooks.Webhooks
	handler http.Handler
	url     string
}

func newBundle(tb testing.TB) *bundle {
	tb.Helper()
	b := &bundle{}
	client := outbound.New(outbound.Options{Resolver: markettest.OfflineResolver()})
	b.Bundle = markettest.New(tb, func(deps *market.Deps) {
		b.hooks = webhooks.New(webhooks.Options{
			DB: deps.DB, Events: deps.Events, Client: client, Cipher: deps.Cipher, MarketplaceURL: "https://agentmarket.space", Now: deps.Now, Logger: deps.Logger,
		})
		deps.Webhooks, deps.CheckURL, deps.CheckHost = b.hooks, client.CheckURL, client.CheckHost
	})
	resolver := &graph.Resolver{Market: b.Market, Events: b.Log, Webhooks: b.hooks}
	responses, err := cache.New(cache.Options{DB: b.DB, Now: b.Clock.Now, NextDeadline: b.NextDeadline})
	testutil.Must(tb, err)
	b.handler = b.authenticate(New(resolver, Options{Version: "1.0.0", PublicURL: "https://agentmarket.space", Logger: b.Logger, Cache: responses}))
	server := httptest.NewServer(b.handler)
	tb.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// authenticate is the middleware that adds the request and the caller to the context.
func (b *bundle) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := auth.WithRequest(r.Context(), &auth.Request{
			ID: "request", Address: "192.0.2.1", IdempotencyKey: r.Header.Get("Idempotency-Key"),
		})
		if key := r.Header.Get("X-Api-Key"); key != "" {
			actor, err := b.Keys.Authenticate(ctx, key)
			if err != nil {
				WriteError(w, r.WithContext(ctx), err, nil)
				return
			}
			ctx = auth.WithActor(ctx, actor)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// request is a request to send. headers are pairs of name and value.
type request struct {
	method, path, key, body string
	headers                 []string
}

// apiResponse is a response and its decoded envelope.
type apiResponse struct {
	*http.Response
	raw  []byte
	body map[string]any
}

// send sends a request and checks the envelope of the response.
func (b *bundle) send(tb testing.TB, r request) apiResponse {
	tb.Helper()
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(tb.Context(), r.method, b.url+r.path, body)
	testutil.Must(tb, err)
	if r.key != "" {
		req.Header.Set("X-Api-Key", r.key)
	}
	for i := 0; i < len(r.headers); i += 2 {
		req.Header.Set(r.headers[i], r.headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	testutil.Must(tb, err)
	defer func() { testutil.Must(tb, res.Body.Close()) }()
	out := apiResponse{Response: res}
	out.raw, err = io.ReadAll(res.Body)
	testutil.Must(tb, err)
	if r.method != http.MethodHead {
		out.body = parseEnvelope(tb, res.StatusCode, res.Header, out.raw)
	}
	return out
}

// parseEnvelope decodes a response and checks the form of its envelope.
func parseEnvelope(tb testing.TB, status int, header http.Header, raw []byte) map[string]any {
	tb.Helper()
	var body map[string]any
	if err := json.Unmarshal(raw, &body); err != nil {
		tb.Fatalf("status %d: not a JSON object: %v in %q", status, err, raw)
	}
	if got := header.Get("Content-Type"); got != "application/json" {
		tb.Errorf("Content-Type %q", got)
	}
	if body["success"] != (status == http.StatusOK || status == http.StatusAccepted) {
		tb.Errorf("status %d with %s", status, raw)
	}
	_, hasData := body["data"]
	_, hasCode := body["code"].(string)
	_, hasError := body["error"].(string)
	if hasData == hasError || hasError != hasCode {
		tb.Errorf("not an envelope: %s", raw)
	}
	return body
}

// mustSend sends a request that must succeed and returns its data.
func (b *bundle) mustSend(tb testing.TB, r request) map[string]any {
	tb.Helper()
	res := b.send(tb, r)
	data, isObject := res.body["data"].(map[string]any)
	if res.StatusCode != http.StatusOK || !isObject {
		tb.Fatalf("%s %s: %d %s", r.method, r.path, res.StatusCode, res.raw)
	}
	return data
}

// caller is an agent and its API key.
type caller struct{ id, key string }

// registerAgent registers an agent. members are additional JSON members.
func (b *bundle) registerAgent(tb testing.TB, name, members string) caller {
	tb.Helper()
	data := b.mustSend(tb, request{method: http.MethodPost, path: "/api/agents/register", body: fmt.Sprintf(`{"name":%q%s}`, name, members)})
	return caller{id: stringField(tb, data, "id"), key: stringField(tb, data, "api_key")}
}

// postTask posts a task for 25 credits and returns its id.
func (b *bundle) postTask(tb testing.TB, poster caller) string {
	tb.Helper()
	return stringField(tb, b.mustSend(tb, request{
		method: http.MethodPost, path: "/api/tasks", key: poster.key,
		body: `{"title":"Summarize","description":"All of it","budget":25,"required_capabilities":["research"]}`,
	}), "id")
}

// stateSnapshot returns a text that changes with every state that a request can
// change.
func (b *bundle) stateSnapshot(tb testing.TB) string {
	tb.Helper()
	var counts []int64
	testutil.Must(tb, b.DB.Read(tb.Context()).Raw(`
		SELECT COUNT(*) FROM agents UNION ALL SELECT COUNT(*) FROM tasks UNION ALL SELECT COUNT(*) FROM transfers
		UNION ALL SELECT COUNT(*) FROM events UNION ALL SELECT COUNT(*) FROM webhooks UNION ALL SELECT COUNT(*) FROM secrets
		UNION ALL SELECT COUNT(*) FROM idempotency_keys UNION ALL SELECT COALESCE(SUM(available * 7 + held), 0) FROM wallets`).Scan(&counts).Error)
	var tasks []models.Task
	testutil.Must(tb, b.DB.Read(tb.Context()).Order("id").Find(&tasks).Error)
	state, err := json.Marshal(tasks)
	testutil.Must(tb, err)
	return fmt.Sprint(counts, string(state))
}

func stringField(tb testing.TB, data map[string]any, name string) string {
	tb.Helper()
	value, ok := data[name].(string)
	if !ok {
		tb.Fatalf("no string %s in %v", name, data)
	}
	return value
}
