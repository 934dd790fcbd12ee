package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// wantSignature checks that a delivery is signed with a secret.
func wantSignature(t *testing.T, d delivery, secret string) {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write([]byte(d.body))
	testutil.Equal(t, "signature", d.header.Get("X-AgentMarket-Signature"), "sha256="+hex.EncodeToString(mac.Sum(nil)))
}

// TestSecretKey_missing: a start whose key cannot decrypt the secrets is refused, and
// changes nothing, until the key is back. With --new-secret-key the secrets are given up:
// owners see why their webhooks fail, and rotate them.
func TestSecretKey_missing(t *testing.T) {
	t.Parallel()
	deliveries, url, env := startReceiver(t, nil)
	env = append(env, quickRetries)
	server := testserver.Start(t, env...)
	const idempotencyKey = "a key that is long enough"
	agent := server.Register("Agent", map[string]any{"webhookUrl": url, "capabilities": []string{"x"}}, "Idempotency-Key", idempotencyKey)
	poster := server.Register("Poster", nil)
	server.PostTask(poster.Key, "x")
	wantSignature(t, nextDelivery(t, deliveries), agent.WebhookSecret)
	server.Kill()

	file := filepath.Join(server.Dir, "agentmarket.db")
	testutil.Must(t, os.Rename(file+".key", file+".key.away"))
	refused := func(want string, args ...string) {
		t.Helper()
		testserver.ExpectExit(t, 1, want, append(args, "--database="+file)...)
	}
	refused("restore the file, or give up the secrets with --new-secret-key", "serve", "--addr=127.0.0.1:0")
	refused("no such file", "rekey")
	if keys, _ := filepath.Glob(file + ".key*"); len(keys) != 1 {
		t.Errorf("a refused start left %v", keys)
	}
	refused("use the key that encrypted them", "serve", "--addr=127.0.0.1:0", "--secret-key=not the right key")
	refused("neither key decrypts", "rekey", "--secret-key=not the right key", "--old-secret-key=also not the right one")
	testutil.Must(t, os.WriteFile(file+".key", []byte(strings.Repeat("ab", 32)+"\n"), 0o600))
	refused("use the key that encrypted them", "serve", "--addr=127.0.0.1:0")
	refused("neither key decrypts", "rekey")
	if keys, _ := filepath.Glob(file + ".key*"); len(keys) != 2 {
		t.Errorf("a refused rekey left %v", keys)
	}

	testutil.Must(t, os.Rename(file+".key.away", file+".key"))
	server.Restart()
	server.PostTask(poster.Key, "x")
	wantSignature(t, nextDelivery(t, deliveries), agent.WebhookSecret)
	server.Kill()
	testutil.Must(t, os.Remove(file+".key"))
	given := testserver.StartCommand(t, []string{testserver.BinaryPath(), "serve", "--new-secret-key"}, append(env, "AGENTMARKET_DATABASE="+file)...)
	if !strings.Contains(given.Log(), "secrets were given up") {
		t.Errorf("the log: %s", given.Log())
	}
	given.Kill()
	server.Restart()
	wantGivenUp(t, server, agent, poster, deliveries)
	input := map[string]any{"name": "Agent", "webhookUrl": url, "capabilities": []string{"x"}}
	err := server.Query("", `mutation($input: RegisterAgentInput!) { registerAgent(input: $input) { apiKey } }`, map[string]any{"input": input}, nil, "Idempotency-Key", idempotencyKey)
	if err == nil || !strings.Contains(err.Error(), "CONFLICT") || !strings.Contains(err.Error(), "lost") {
		t.Errorf("a repeated request: %v", err)
	}
	server.Verify()
}

// wantGivenUp checks that the owner of a webhook whose secret was given up sees why, and
// that everything works after a rotation.
func wantGivenUp(t *testing.T, server *testserver.Server, agent, poster testserver.Agent, deliveries <-chan delivery) {
	t.Helper()
	task := server.PostTask(poster.Key, "x")
	testutil.Eventually(t, "a failed attempt", func() bool {
		var data struct {
			Viewer struct {
				Webhook struct {
					Deliveries struct{ Nodes []struct{ LastError *string } }
				}
			}
		}
		testutil.Must(t, server.Query(agent.Key, `{ viewer { webhook { deliveries(first: 1) { nodes { lastError } } } } }`, nil, &data))
		nodes := data.Viewer.Webhook.Deliveries.Nodes
		return len(nodes) == 1 && nodes[0].LastError != nil && strings.Contains(*nodes[0].LastError, "rotateWebhookSecret")
	})
	var rotated struct{ RotateWebhookSecret struct{ Secret string } }
	testutil.Must(t, server.Query(agent.Key, `mutation { rotateWebhookSecret(input: {overlapMinutes: 60}) { secret } }`, nil, &rotated))
	retry := nextDelivery(t, deliveries)
	for !strings.Contains(retry.body, task.ID) { // a kill can repeat an earlier one
		retry = nextDelivery(t, deliveries)
	}
	wantSignature(t, retry, rotated.RotateWebhookSecret.Secret)
}

// TestSecretKey_postgres: on PostgreSQL too, a start with another key is refused, while
// other replicas run, and the keys of a rotation are accepted in its order.
func TestSecretKey_postgres(t *testing.T) {
	t.Parallel()
	database := services.NewPostgresDatabase(t)
	const first, second = "the first secret key", "the second secret key"
	settings := func(current, old string) []string {
		return []string{"AGENTMARKET_DATABASE=" + database, "AGENTMARKET_SECRET_KEY=" + current, "AGENTMARKET_OLD_SECRET_KEY=" + old}
	}
	server := testserver.Start(t, settings(first, "")...)
	agent := server.Register("Agent", map[string]any{"endpointUrl": "https://agent.example.com/run"})
	refused := func(current string) {
		t.Helper()
		testserver.ExpectExit(t, 1, "use the key that encrypted them", "--addr=127.0.0.1:0", "--database="+database, "--secret-key="+current)
	}
	refused(second)
	replica := testserver.Start(t, settings(first, second)...)
	replica.Stop()
	server.Stop()
	server.Restart(settings(second, first)...)
	refused(first)
	refused(second)
	if text, code := testserver.Run(t, server.Dir, "rekey", "--database="+database, "--secret-key="+second, "--old-secret-key="+first); code != 0 {
		t.Fatal(text)
	}
	server.Stop()
	refused(first)
	server.Restart(settings(second, "")...)
	if status, text := server.Do(http.MethodGet, "/api/wallet", agent.Key, ""); status != http.StatusOK {
		t.Errorf("the wallet: %d %s", status, text)
	}
}
