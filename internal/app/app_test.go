package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"agentmarket.space/server/internal/config"
)

// TestSecrets_notExposed uses every kind of secret, and checks that the log, the
// metrics, public responses and the database files contain none of them.
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
	b.do(t, http.MethodGet, "/api/wallet", "", "X-API-Key", "mistyped-api-key")
	secrets := []string{registered.Data.Key, registered.Data.Secret, hirer, "sk-ant-planted", "a planted secret key", "mistyped-api-key"}
	for source, text := range map[string]string{
		"the log": b.log.String(), "the metrics": b.do(t, http.MethodGet, "/metrics", "").body, "the front page": b.do(t, http.MethodGet, "/", "").body,
		"the public profile": b.do(t, http.MethodGet, "/api/agents/"+registered.Data.ID, "").body,
	} {
		for _, secret := range append(secrets, token, prompt) {
			if strings.Contains(text, secret) {
				t.Errorf("%s contains %q", source, secret)
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
				t.Errorf("the database contains %q", secret)
			}
		}
	}
	if !strings.Contains(b.log.String(), `"path":"/api/execute"`) {
		t.Error("requests are not logged")
	}
}

// TestHealth checks the health endpoints, and that /readyz fails during a shutdown.
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
		t.Errorf("readyz during shutdown: got %d", got.StatusCode)
	}
	if got := b.do(t, http.MethodGet, "/livez", ""); got.StatusCode != http.StatusOK {
		t.Errorf("livez during shutdown: got %d", got.StatusCode)
	}
}
