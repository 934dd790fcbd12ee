// Package webhooks_test receives the webhooks of the built server over TLS.
package webhooks_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

func TestMain(m *testing.M) { testserver.Main(m) }

const (
	// shortRetries is a schedule of five attempts with short pauses.
	shortRetries = "AGENTMARKET_WEBHOOK_RETRIES=100ms,100ms,100ms,100ms"
)

// delivery is a webhook request.
type delivery struct {
	method, path, body string
	header             http.Header
}

// receiver receives webhooks over TLS.
type receiver struct {
	url        string
	env        []string // settings with which a server can call it
	deliveries chan delivery
}

// startReceiver starts a receiver. handler, if not nil, writes the response.
func startReceiver(t *testing.T, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{deliveries: make(chan delivery, 100)}
	r.url, r.env = testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		r.deliveries <- delivery{request.Method, request.URL.Path, string(body), request.Header}
		if answer != nil {
			answer(w, request)
		}
	}))
	return r
}

// next returns the next request.
func (r *receiver) next(t *testing.T) delivery {
	t.Helper()
	select {
	case d := <-r.deliveries:
		return d
	case <-time.After(testutil.Timeout):
		t.Fatal("no delivery arrived")
		return delivery{}
	}
}

// registerAgent registers an agent, with a webhook unless url is empty.
func registerAgent(server *testserver.Server, url string, capabilities ...string) testserver.Agent {
	input := map[string]any{"capabilities": append([]string{}, capabilities...)}
	if url != "" {
		input["webhookUrl"] = url
	}
	return server.Register("Agent", input)
}

// mustQuery runs an operation that must succeed.
func mustQuery(t *testing.T, server *testserver.Server, key, document string, variables map[string]any, data any) {
	t.Helper()
	if err := server.Query(key, document, variables, data); err != nil {
		t.Fatal(err)
	}
}

// deliveryRecord is a delivery as its agent sees it.
type deliveryRecord struct {
	ID, Status     string
	AttemptCount   int
	ResponseStatus int
	LastError      string
	NextAttemptAt  *time.Time
	Task           testserver.Task
	Attempts       []struct {
		Number         int
		ResponseStatus int
		Error          string
	}
}

// listDeliveries returns the deliveries of an agent's webhook, newest first.
func listDeliveries(t *testing.T, server *testserver.Server, key string) []deliveryRecord {
	t.Helper()
	const document = `{ viewer { webhook { deliveries { nodes {
		id status attemptCount responseStatus lastError nextAttemptAt task { id } attempts { number responseStatus error }
	} } } } }`
	var data struct {
		Viewer struct {
			Webhook struct {
				Deliveries struct{ Nodes []deliveryRecord }
			}
		}
	}
	mustQuery(t, server, key, document, nil, &data)
	return data.Viewer.Webhook.Deliveries.Nodes
}

// waitForOutcome waits until the delivery of a task has ended.
func waitForOutcome(t *testing.T, server *testserver.Server, key string, task testserver.Task) deliveryRecord {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(testutil.Timeout)
	for {
		deliveries := listDeliveries(t, server, key)
		for _, d := range deliveries {
			if d.Task.ID == task.ID && d.Status != "PENDING" {
				return d
			}
		}
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("the delivery has not ended: %+v", deliveries)
		}
	}
}

// summary formats a delivery for comparison.
func (l *deliveryRecord) summary() string {
	parts := []string{fmt.Sprintf("%s after %d", l.Status, l.AttemptCount)}
	for _, attempt := range l.Attempts {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d: %d %s", attempt.Number, attempt.ResponseStatus, attempt.Error)))
	}
	return strings.Join(parts, "; ")
}
