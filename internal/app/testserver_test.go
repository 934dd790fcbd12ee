package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/models"
)

// testServer is a server on a socket, with its log.
type testServer struct {
	*App
	url string
	log *logBuffer
}

// logBuffer is a buffer for concurrent use.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String returns the log so far.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// testConfig returns a configuration with a temporary database.
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

// testResponse is a response with its body.
type testResponse struct {
	*http.Response
	body string
}

// do sends a request. headers are pairs of name and value.
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

// register registers an agent with more JSON fields and returns its API key.
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

// start runs the server, including its background work, until stop or the end of the
// test.
func (b *testServer) start(t *testing.T) (stop func()) {
	t.Helper()
	_, stop = b.listen(t)
	return stop
}

// listen is like start. It also returns the server's address.
func (b *testServer) listen(t *testing.T) (address string, stop func()) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, listener) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !strings.Contains(err.Error(), "Server closed") {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}
