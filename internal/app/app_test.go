package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/models"
)

// testServer is the whole server on a socket, and what it logs.
type testServer struct {
	*App
	url string
	log *logBuffer
}

// logBuffer is a log that a test reads while it is written.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write keeps p.
func (j *logBuffer) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buffer.Write(p)
}

// String returns what was logged.
func (j *logBuffer) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buffer.String()
}

// testConfig are the defaults, with a database of the test's own.
func testConfig(t *testing.T) config.Config {
	t.Helper()
	return config.Config{
		Addr: "127.0.0.1:0", Database: filepath.Join(t.TempDir(), "a.db"), PublicURL: "http://market.example", MarketplaceURL: "http://market.example",
		RateLimits: "off", Introspection: "on", EndpointTimeout: time.Second, WebhookTimeout: time.Second, Lease: time.Hour, OpenFor: time.Hour,
		MinBudget: models.MinBudget, StartingCredits: 100, ClaudeModel: "m", ClaudeMaxTokens: 1, AllowOrigins: []string{"https://dashboard.example"},
	}
}

func newTestServer(t *testing.T, change func(*config.Config)) *testServer {
	t.Helper()
	c := testConfig(t)
	if change != nil {
		change(&c)
	}
	b := &testServer{log: &logBuffer{}}
	var err error
	b.App, err = New(t.Context(), c, "test", slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(b.Handler)
	t.Cleanup(func() {
		server.Close()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	b.url = server.URL
	return b
}

// testResponse is what came back.
type testResponse struct {
	*http.Response
	body string
}

// do sends a request. Headers are pairs of name and value.
func (b *testServer) do(t *testing.T, method, path, body string, headers ...string) testResponse {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return testResponse{response, string(text)}
}

// register registers an agent and returns its key.
func (b *testServer) register(t *testing.T, more string) string {
	t.Helper()
	got := b.do(t, http.MethodPost, "/api/agents/register", `{"name":"Bot"`+more+`}`)
	var data struct {
		Data struct {
			APIKey string `json:"api_key"`
		}
	}
	if err := json.Unmarshal([]byte(got.body), &data); err != nil || data.Data.APIKey == "" {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	return data.Data.APIKey
}

// TestRateLimiter keeps callers to their pace, each by itself: an agent by its key, a
// stranger by the address, and whoever registers by the minute.
func TestRateLimiter(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.RateLimits = "on" })
	key := b.register(t, "")
	var refused testResponse
	for range 1000 { // 200 at once, and what a second of the test's own time gives back
		if got := b.do(t, http.MethodGet, "/api/wallet", "", "X-API-Key", key); got.StatusCode == http.StatusTooManyRequests {
			refused = got
			break
		}
	}
	if refused.Response == nil {
		t.Fatal("a thousand requests were let in")
	}
	for _, part := range []string{`"success":false`, `"code":"RATE_LIMITED"`, `"balance":100`} {
		if !strings.Contains(refused.body, part) {
			t.Errorf("the refusal %s has no %s", refused.body, part)
		}
	}
	for _, name := range []string{"Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy"} {
		if refused.Header.Get(name) == "" {
			t.Errorf("the refusal has no %s", name)
		}
	}
	if got := b.do(t, http.MethodPost, "/graphql", `{"query":"{ viewer { id } }"}`, "X-API-Key", key); got.StatusCode == http.StatusTooManyRequests &&
		!strings.Contains(got.body, `"extensions":{"code":"RATE_LIMITED"}`) {
		t.Errorf("GraphQL is refused with %s", got.body)
	}
	if got := b.do(t, http.MethodGet, "/api/tasks", ""); got.StatusCode != http.StatusOK {
		t.Errorf("a stranger pays for an agent: %d", got.StatusCode)
	}
	registered := 1
	for ; registered < 100; registered++ {
		if got := b.do(t, http.MethodPost, "/api/agents/register", `{"name":"Bot"}`); got.StatusCode != http.StatusOK {
			if !strings.Contains(got.body, "too many agents were registered from this address") {
				t.Errorf("refused with %s", got.body)
			}
			break
		}
	}
	if registered < 60 || registered > 65 {
		t.Errorf("%d agents were registered at once", registered)
	}
}

// TestKeyedLimiter has the figures, on a clock of its own.
func TestKeyedLimiter(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	l, err := newKeyedLimiter(callRate{interval: 100 * time.Millisecond, burst: 20}, 0, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if left, wait := l.allow("a"); wait != 0 || left != 19-i {
			t.Fatalf("request %d: %d left, wait %s", i, left, wait)
		}
	}
	if _, wait := l.allow("a"); wait != 100*time.Millisecond {
		t.Errorf("wait %s", wait)
	}
	if _, wait := l.allow("b"); wait != 0 {
		t.Error("another caller waits too")
	}
	now = now.Add(500 * time.Millisecond)
	for range 5 {
		if _, wait := l.allow("a"); wait != 0 {
			t.Errorf("after half a second: wait %s", wait)
		}
	}
	if _, wait := l.allow("a"); wait == 0 {
		t.Error("half a second gave more than five")
	}
}

// TestSecureHeaders: what protects browsers, and what lets the dashboard in.
func TestSecureHeaders(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	const ours, other = "https://dashboard.example", "https://evil.example"
	for _, path := range []string{"/graphql", "/api/tasks", "/explorer", "/openapi.json", "/livez", "/nowhere"} {
		got := b.do(t, http.MethodGet, path, "", "Origin", ours)
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Access-Control-Allow-Origin": ours} {
			if got.Header.Get(name) != want {
				t.Errorf("%s: %s is %q", path, name, got.Header.Get(name))
			}
		}
		if policy := got.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src '") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: the policy is %q", path, policy)
		}
		if got.Header.Get("Strict-Transport-Security") != "" || got.Header.Get("Server") != "" || got.Header.Get("X-Powered-By") != "" {
			t.Errorf("%s: %v", path, got.Header)
		}
		if got := b.do(t, http.MethodGet, path, "", "Origin", other); got.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s lets a page of another origin in", path)
		}
		preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-api-key"}
		if got := b.do(t, http.MethodOptions, path, "", append(preflight, "Origin", ours)...); got.StatusCode != http.StatusNoContent ||
			!strings.Contains(got.Header.Get("Access-Control-Allow-Headers"), "X-API-Key") {
			t.Errorf("%s: the preflight got %d", path, got.StatusCode)
		}
		if got := b.do(t, http.MethodOptions, path, "", append(preflight, "Origin", other)...); got.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: another origin's preflight got leave", path)
		}
	}
	got := b.do(t, http.MethodPost, "/api/agents/register", `{"name":"Bot"}`, "Origin", other, "Sec-Fetch-Site", "cross-site")
	if got.StatusCode != http.StatusForbidden || !strings.Contains(got.body, `"code":"FORBIDDEN"`) {
		t.Errorf("a page of another origin registered: %d %s", got.StatusCode, got.body)
	}
}

// TestSecureHeaders_hsts: a server that clients reach over TLS says that they always do.
func TestSecureHeaders_hsts(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.PublicURL = "https://market.example" })
	for _, path := range []string{"/graphql", "/api/tasks", "/explorer"} {
		if got := b.do(t, http.MethodGet, path, "").Header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestRequestID keeps a client's id when it is fit for a log.
func TestRequestID(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	if got := b.do(t, http.MethodGet, "/livez", "", "X-Request-Id", "mine-1"); got.Header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("the id is %q", got.Header.Get("X-Request-Id"))
	}
	for _, bad := range []string{"", strings.Repeat("a", 65), "a b", "a\tb", "ä"} {
		if got := b.do(t, http.MethodGet, "/livez", "", "X-Request-Id", bad); len(got.Header.Get("X-Request-Id")) != 36 {
			t.Errorf("%q became %q", bad, got.Header.Get("X-Request-Id"))
		}
	}
}

// TestInstrument_recoversPanics: a panic is answered and logged, and net/http's own way out of a
// handler stays open.
func TestInstrument_recoversPanics(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	b := newTestServer(t, nil)
	handler := instrument(b.metrics, nil, slog.New(slog.NewJSONHandler(log, nil)), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
	recorded := httptest.NewRecorder()
	handler.ServeHTTP(recorded, httptest.NewRequest(http.MethodGet, "/api/tasks", http.NoBody))
	if recorded.Code != http.StatusInternalServerError || !strings.Contains(recorded.Body.String(), `"code":"INTERNAL"`) || strings.Contains(recorded.Body.String(), "boom") {
		t.Errorf("answered %d %s", recorded.Code, recorded.Body)
	}
	if !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), recorded.Header().Get("X-Request-Id")) {
		t.Errorf("logged %s", log)
	}
}

// TestSecrets_notExposed lets an agent do all that involves a secret, and finds none of it
// in the log, the metrics or the database's bytes.
func TestSecrets_notExposed(t *testing.T) {
	t.Parallel()
	endpoint := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	endpoint.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(endpoint.Close)
	b := newTestServer(t, func(c *config.Config) {
		c.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.AnthropicAPIKey, c.SecretKey = "sk-ant-planted", "a planted secret key"
	})
	const token, prompt = "token-in-the-address", "prompt-that-is-private"
	got := b.do(t, http.MethodPost, "/api/agents/register",
		fmt.Sprintf(`{"name":"Bot","endpoint_url":"%s/?%s","webhook_url":"%s/?%s","system_prompt":%q}`, endpoint.URL, token, endpoint.URL, token, prompt))
	var registered struct {
		Data struct {
			ID     string
			Key    string `json:"api_key"`
			Secret string `json:"webhook_secret"`
		}
	}
	if err := json.Unmarshal([]byte(got.body), &registered); err != nil || registered.Data.Secret == "" {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	hirer := b.register(t, "")
	b.do(t, http.MethodPost, "/api/execute", fmt.Sprintf(`{"agent_id":%q,"task_description":"D","budget":20}`, registered.Data.ID), "X-API-Key", hirer)
	b.do(t, http.MethodPost, "/graphql", `{"query":"mutation { rotateApiKey { apiKey } rotateWebhookSecret(input: {}) { secret } }"}`, "Authorization", "Bearer "+hirer)
	b.do(t, http.MethodGet, "/api/wallet", "", "X-API-Key", "wrong-key-that-was-typed")
	secrets := []string{registered.Data.Key, registered.Data.Secret, hirer, "sk-ant-planted", "a planted secret key", "wrong-key-that-was-typed"}
	for place, text := range map[string]string{
		"the log": b.log.String(), "the metrics": b.do(t, http.MethodGet, "/metrics", "").body, "the front page": b.do(t, http.MethodGet, "/", "").body,
		"another's view": b.do(t, http.MethodGet, "/api/agents/"+registered.Data.ID, "").body,
	} {
		for _, secret := range append(secrets, token, prompt) {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", place, secret)
			}
		}
	}
	for _, file := range []string{"", "-wal"} {
		text, err := os.ReadFile(b.config.Database + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("the database has %q", secret)
			}
		}
	}
	if !strings.Contains(b.log.String(), `"path":"/api/execute"`) {
		t.Error("requests are not logged")
	}
}

// TestHealth: ready until it is not.
func TestHealth(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	for path, want := range map[string]string{"/livez": "ok", "/readyz": "ready", "/metrics": "agentmarket_", "/": "GraphQL"} {
		if got := b.do(t, http.MethodGet, path, ""); got.StatusCode != http.StatusOK || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d %.200s", path, got.StatusCode, got.body)
		}
	}
	b.stopOnce.Do(func() { close(b.stopping) })
	if got := b.do(t, http.MethodGet, "/readyz", ""); got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("while it stops it is %d", got.StatusCode)
	}
	if got := b.do(t, http.MethodGet, "/livez", ""); got.StatusCode != http.StatusOK {
		t.Errorf("while it stops it is dead: %d", got.StatusCode)
	}
}

// TestClientAddress believes proxies that are trusted, and nobody else.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, row := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:5", "", "192.0.2.1"},
		{"192.0.2.1:5", "203.0.113.9", "192.0.2.1"},
		{"10.0.0.1:5", "203.0.113.9", "203.0.113.9"},
		{"10.0.0.1:5", "198.51.100.1, 203.0.113.9", "203.0.113.9"},
		{"10.0.0.1:5", "203.0.113.9, 10.0.0.2", "203.0.113.9"},
		{"10.0.0.1:5", "nonsense, 10.0.0.2", "10.0.0.2"},
		{"10.0.0.1:5", "203.0.113.9:40000", "203.0.113.9"},
		{"10.0.0.1:5", "[2001:DB8:0::1]:40000", "2001:db8::1"},
		{"10.0.0.1:5", "::ffff:203.0.113.9", "203.0.113.9"},
		{"10.0.0.1:5", "", "10.0.0.1"},
		{"[::ffff:10.0.0.1]:5", "203.0.113.9", "203.0.113.9"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.RemoteAddr = row.remote
		r.Header.Set("X-Forwarded-For", row.forwarded)
		if got := clientAddress(r, trusted); got != row.want {
			t.Errorf("%s for %q is %s, want %s", row.remote, row.forwarded, got, row.want)
		}
	}
}

// TestOpenSealer is made once, for its owner's eyes, and never guessed at.
func TestOpenSealer(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	first, err := openSealer(c)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(c.Database + ".key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file is %v (%v)", info.Mode(), err)
	}
	second, err := openSealer(c)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := second.Decrypt(first.Encrypt([]byte("secret"), "label"), "label"); err != nil || string(plain) != "secret" {
		t.Errorf("the next start opens %q (%v)", plain, err)
	}
	if err := os.WriteFile(c.Database+".key", nil, 0o600); err != nil { // as a crash could leave it
		t.Fatal(err)
	}
	if _, err := openSealer(c); err == nil || !strings.Contains(err.Error(), "needs 16 or more") {
		t.Errorf("an empty key: %v", err)
	}
}

// TestBanner says where everything is and what is off, and no secret.
func TestBanner(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) {
		c.SecretKey, c.Database = "a planted secret key", filepath.Join(t.TempDir(), "agentmarket.db")
	})
	for _, want := range []string{
		"AgentMarket test", "sqlite " + b.config.Database, "Traces     off (set OTEL_EXPORTER_OTLP_ENDPOINT)", "http://market.example/graphql", "ws://market.example/graphql", "http://market.example/api", "/explorer",
		"/openapi.json", "/metrics", "Rate limit off", "system prompts: off (set ANTHROPIC_API_KEY)", "curl -X POST http://market.example/api/agents/register",
	} {
		if text := b.banner(); !strings.Contains(text, want) || strings.Contains(text, "planted") {
			t.Errorf("the banner has no %q, or the secret key:\n%s", want, text)
		}
	}
}

// TestPrintStartupInfo: off a terminal the same is one entry of the log, and nothing else is written.
func TestPrintStartupInfo(t *testing.T) {
	t.Parallel()
	var log, out bytes.Buffer
	b := newTestServer(t, nil)
	b.logger = NewLogger(&log)
	if err := b.PrintStartupInfo(t.Context(), &out); err != nil || out.Len() > 0 {
		t.Fatalf("%q is written (%v)", out.String(), err)
	}
	var entry map[string]string
	if err := json.Unmarshal(log.Bytes(), &entry); err != nil {
		t.Fatalf("%v in %s", err, log.String())
	}
	for name, want := range map[string]string{
		"msg": "serving", "store": b.config.Database, "graphql": "http://market.example/graphql ", "rest": "/docs",
		"operator": "AGENTMARKET_OPERATOR_KEY", "execute": "set ANTHROPIC_API_KEY", "traces": "off", "rate_limit": "off", "sealed_with": "key",
	} {
		if !strings.Contains(entry[name], want) {
			t.Errorf("%s is %q, want %q in it", name, entry[name], want)
		}
	}
}

// TestRequestBody_limits: one that is too big, or whose length is told twice, is refused.
func TestRequestBody_limits(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\nContent-Length: 5\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	status := make([]byte, 12)
	if _, err := io.ReadFull(conn, status); err != nil || string(status) != "HTTP/1.1 400" {
		t.Errorf("two lengths are answered with %q (%v)", status, err)
	}
	for _, path := range []string{"/graphql", "/api/tasks"} {
		got := b.do(t, http.MethodPost, path, strings.Repeat("a", 5<<20), "X-API-Key", b.register(t, ""))
		if got.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(got.body, "PAYLOAD_TOO_LARGE") {
			t.Errorf("%s: 5 MB are answered with %d %.200s", path, got.StatusCode, got.body)
		}
	}
}
