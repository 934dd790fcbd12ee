// Package hooks_test receives the webhooks of the built server, over TLS, as
// agents do.
package hooks_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/program"
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	// patience is how long anything may take before a test gives up.
	patience = 30 * time.Second
	// retries are short pauses between five attempts.
	retries = "AGENTMARKET_WEBHOOK_RETRIES=100ms,100ms,100ms,100ms"
)

// delivery is a request that a receiver got.
type delivery struct {
	method, path, body string
	header             http.Header
}

// receiver takes deliveries over TLS.
type receiver struct {
	url string
	env []string // has a server call it
	got chan delivery
}

// receive starts a receiver that answers as it is told to, or else 200.
func receive(t *testing.T, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{got: make(chan delivery, 100)}
	r.url, r.env = program.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		r.got <- delivery{request.Method, request.URL.Path, string(body), request.Header}
		if answer != nil {
			answer(w, request)
		}
	}))
	return r
}

// next is the next delivery that comes.
func (r *receiver) next(t *testing.T) delivery {
	t.Helper()
	select {
	case one := <-r.got:
		return one
	case <-time.After(patience):
		t.Fatal("no delivery comes")
		return delivery{}
	}
}

// register registers an agent, with a webhook unless url is empty.
func register(server *program.Server, url string, capabilities ...string) program.Agent {
	more := map[string]any{"capabilities": append([]string{}, capabilities...)}
	if url != "" {
		more["webhookUrl"] = url
	}
	return server.Register("Agent", more)
}

// task is a posted task.
type task struct{ ID, CreatedAt string }

// post posts the documented task.
func post(t *testing.T, server *program.Server, key string, capabilities ...string) task {
	t.Helper()
	const document = `mutation($words: [String!]!) {
		postTask(input: {title: "Summarize this paper", description: "Full text...", budget: 25, requiredCapabilities: $words}) { task { id createdAt } }
	}`
	var data struct{ PostTask struct{ Task task } }
	query(t, server, key, document, map[string]any{"words": capabilities}, &data)
	return data.PostTask.Task
}

// query runs an operation that must work.
func query(t *testing.T, server *program.Server, key, document string, variables map[string]any, data any) {
	t.Helper()
	if err := server.Query(key, document, variables, data); err != nil {
		t.Fatal(err)
	}
}

// logged is a delivery as its agent sees it.
type logged struct {
	ID, Status     string
	AttemptCount   int
	ResponseStatus int
	LastError      string
	NextAttemptAt  *time.Time
	Task           task
	Attempts       []struct {
		Number         int
		ResponseStatus int
		Error          string
	}
}

// deliveries are those of an agent's webhook, newest first.
func deliveries(t *testing.T, server *program.Server, key string) []logged {
	t.Helper()
	const document = `{ viewer { webhook { deliveries { nodes {
		id status attemptCount responseStatus lastError nextAttemptAt task { id } attempts { number responseStatus error }
	} } } } }`
	var data struct {
		Viewer struct {
			Webhook struct{ Deliveries struct{ Nodes []logged } }
		}
	}
	query(t, server, key, document, nil, &data)
	return data.Viewer.Webhook.Deliveries.Nodes
}

// settled waits until the delivery that tells an agent of a task is over.
func settled(t *testing.T, server *program.Server, key string, of task) logged {
	t.Helper()
	looks := time.NewTicker(10 * time.Millisecond)
	defer looks.Stop()
	tooLong := time.After(patience)
	for {
		all := deliveries(t, server, key)
		for _, one := range all {
			if one.Task.ID == of.ID && one.Status != "PENDING" {
				return one
			}
		}
		select {
		case <-looks.C:
		case <-tooLong:
			t.Fatalf("the delivery is not over: %+v", all)
		}
	}
}

// outcome is a delivery in a few words.
func (l *logged) outcome() string {
	parts := []string{fmt.Sprintf("%s after %d", l.Status, l.AttemptCount)}
	for _, attempt := range l.Attempts {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d: %d %s", attempt.Number, attempt.ResponseStatus, attempt.Error)))
	}
	return strings.Join(parts, "; ")
}
