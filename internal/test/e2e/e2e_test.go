// Package e2e_test tests the server from outside: its program, its API and its documented
// commands.
package e2e_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

func TestMain(m *testing.M) { testserver.Main(m) }

const quickRetries = "AGENTMARKET_WEBHOOK_RETRIES=50ms,50ms,50ms,50ms"

// storeSettings returns the database settings of a server for the engine under test.
func storeSettings(t *testing.T) []string {
	t.Helper()
	if !services.OnPostgres() {
		return nil
	}
	return []string{"AGENTMARKET_DATABASE=" + services.NewPostgresDatabase(t), "AGENTMARKET_SECRET_KEY=a key for tests only"}
}

// delivery is a webhook request.
type delivery struct {
	header http.Header
	body   string
}

// startReceiver starts a webhook receiver with TLS. handler, if not nil, writes the
// response.
func startReceiver(t *testing.T, handler http.HandlerFunc) (deliveries <-chan delivery, url string, env []string) {
	t.Helper()
	received := make(chan delivery, 1000)
	url, env = testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		received <- delivery{r.Header, string(body)}
		if handler != nil {
			handler(w, r)
		}
	}))
	return received, url, env
}

func nextDelivery(t *testing.T, deliveries <-chan delivery) delivery {
	t.Helper()
	select {
	case d := <-deliveries:
		return d
	case <-time.After(testutil.Timeout):
		t.Fatal("no delivery arrived")
		return delivery{}
	}
}
