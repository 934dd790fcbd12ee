package replicas_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestReplacedKey: a key that is replaced at one replica, whose response is lost, is returned
// by every replica. Of concurrent requests with different Idempotency-Keys one succeeds.
func TestReplacedKey(t *testing.T) {
	t.Parallel()
	servers := startReplicas(t, 3, services.NewPostgresDatabase(t), "")
	key := servers[0].Register("Agent", nil).Key
	idempotencyKeys := []string{uuid.NewString(), uuid.NewString()}
	const document = `{"query":"mutation { rotateApiKey { apiKey } }"}`
	responses := make(chan string)
	for i := range 6 {
		go func() {
			_, text := servers[i%3].Do(http.MethodPost, "/graphql", key, document, "Idempotency-Key", idempotencyKeys[i%2])
			responses <- text
		}()
	}
	newKeys := map[string]bool{}
	for range 6 {
		if text := testutil.Receive(t, "a response", responses); strings.Contains(text, `"apiKey":"`) {
			newKeys[text] = true
		} else if !strings.Contains(text, "UNAUTHENTICATED") {
			t.Errorf("got %s", text)
		}
	}
	if len(newKeys) != 1 {
		t.Fatalf("got %d new keys", len(newKeys))
	}
	for _, server := range servers {
		found := 0
		for _, idempotencyKey := range idempotencyKeys {
			_, text := server.Do(http.MethodPost, "/graphql", key, document, "Idempotency-Key", idempotencyKey)
			switch {
			case newKeys[text]:
				found++
			case !strings.Contains(text, "UNAUTHENTICATED"):
				t.Errorf("got %s", text)
			}
		}
		if found != 1 {
			t.Errorf("%d of the Idempotency-Keys return the new key", found)
		}
	}
	servers[0].Verify()
}
