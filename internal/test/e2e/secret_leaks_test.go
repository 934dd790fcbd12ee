package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// TestSecretLeaks issues and replaces keys and secrets, sends them in wrong places and to
// receivers that echo them, and then searches for each of them in the log, the files, sent
// requests and responses. Every other test that runs the program ends with the same search.
func TestSecretLeaks(t *testing.T) {
	t.Parallel()
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers, err := json.Marshal(r.Header)
		if err != nil {
			t.Error(err)
		}
		http.Error(w, string(headers), http.StatusInternalServerError)
	}))
	server := testserver.Start(t, append(env, quickRetries, "AGENTMARKET_OPERATOR_KEY="+operatorKey, "ANTHROPIC_API_KEY=sk-ant-of-the-tests-0123456789",
		"ANTHROPIC_BASE_URL="+url, "AGENTMARKET_STARTING_CREDITS=1000")...)
	reach := map[string]any{"webhookUrl": url + "/hook?token=of-the-address", "endpointUrl": url + "/run", "capabilities": []string{"x"}, "pricePerTask": 2}
	agent := server.Register("Agent", reach, "Idempotency-Key", "a key that is long enough")
	prompted := server.Register("Prompted", map[string]any{"systemPrompt": "You are prompted.", "pricePerTask": 2})
	poster := server.Register("Poster", nil)
	server.Register("Agent", reach, "Idempotency-Key", "a key that is long enough") // an idempotent replay
	server.PostTask(poster.Key, "x")
	for _, hired := range []string{agent.ID, prompted.ID} {
		server.Do(http.MethodPost, "/api/execute", poster.Key, fmt.Sprintf(`{"agent_id":%q,"task_description":"D","budget":2}`, hired))
	}
	misuseSecrets(server, agent)
	rotated := rotateSecrets(t, server, agent)
	const attempts = `{ viewer { webhook { deliveries { nodes { status lastError attempts { error responseBody } } } } } }`
	testutil.Eventually(t, "a delivery to fail", func() bool {
		_, text := server.Do(http.MethodPost, "/graphql", rotated, fmt.Sprintf(`{"query":%q}`, attempts))
		return strings.Contains(text, `"FAILED"`)
	})
	server.Do(http.MethodGet, "/operator/audit", operatorKey, "")
	server.Do(http.MethodGet, "/metrics", operatorKey, "")
	server.Stop()
	if log := server.Log(); !strings.Contains(log, "webhook delivery given up") {
		t.Errorf("the log has no requests: %s", log)
	}
	if leaks := server.FindLeaks(); len(leaks) > 0 {
		t.Errorf("%d places: %q", len(leaks), leaks)
	}
	checkPlantedSecrets(t, server, rotated, agent.WebhookSecret)
	trusttest.Report(t, "secrets", "0 of the issued keys and secrets are in the log, the files, responses or sent requests")
}

// misuseSecrets sends an agent's key and secret in wrong places.
func misuseSecrets(server *testserver.Server, agent testserver.Agent) {
	for _, secret := range []string{agent.Key, agent.WebhookSecret, operatorKey} {
		server.Do(http.MethodGet, "/api/agents/me", secret[:len(secret)-1]+"x", "")
		server.Do(http.MethodGet, "/operator/audit", secret[:len(secret)-1], "")
		server.Do(http.MethodGet, "/api/wallet?api_key="+strings.ReplaceAll(secret, "+", "%2B"), "", "")
		server.Do(http.MethodPost, "/api/tasks", secret, `{"title":`)
		server.Do(http.MethodPost, "/graphql", secret, `{"query":"{ nothing }"}`)
		server.Do(http.MethodGet, "/api/agents/me", "", "", "Authorization", "Bearer "+secret)
		server.Do(http.MethodPatch, "/api/tasks", secret, "")
	}
}

// rotateSecrets replaces an agent's key and secret and returns the new key.
func rotateSecrets(t *testing.T, server *testserver.Server, agent testserver.Agent) string {
	t.Helper()
	var secret struct{ RotateWebhookSecret struct{ Secret string } }
	if err := server.Query(agent.Key, `mutation { rotateWebhookSecret(input: {overlapMinutes: 5}) { secret } }`, nil, &secret); err != nil {
		t.Fatal(err)
	}
	var key struct {
		RotateAPIKey struct {
			APIKey string `json:"apiKey"`
		} `json:"rotateApiKey"`
	}
	if err := server.Query(agent.Key, `mutation { rotateApiKey { apiKey } }`, nil, &key, "Idempotency-Key", "once, with sixteen letters"); err != nil {
		t.Fatal(err)
	}
	return key.RotateAPIKey.APIKey
}

// checkPlantedSecrets checks that the search finds a key and a secret that are planted.
func checkPlantedSecrets(t *testing.T, server *testserver.Server, secrets ...string) {
	t.Helper()
	file := filepath.Join(server.Dir, "planted")
	for _, secret := range secrets {
		if err := os.WriteFile(file, []byte("before"+secret+"after"), 0o600); err != nil {
			t.Fatal(err)
		}
		if leaks := server.FindLeaks(); !slices.Contains(leaks, "planted shows "+secret) {
			t.Errorf("a planted secret is not found; found %q", leaks)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}
