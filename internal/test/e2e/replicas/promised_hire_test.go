package replicas_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestPromisedHire: a hire made at one replica is completed at another. The caller that
// waits at the first gets the result, subscribers at both receive the events, and the crash
// of the first changes nothing.
func TestPromisedHire(t *testing.T) {
	t.Parallel()
	called := make(chan string, 10)
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct{ Task struct{ ID string } }
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusAccepted)
		called <- call.Task.ID
	}))
	servers := startReplicas(t, 2, services.NewPostgresDatabase(t), services.NATSURL(), env...)
	poster, worker := servers[0].Register("poster", nil), servers[1].Register("worker", map[string]any{"endpointUrl": url})
	hire := fmt.Sprintf(`{"agent_id":%q,"task_description":"Do it.","budget":20}`, worker.ID)
	complete := func(id string) {
		t.Helper()
		if status, text := servers[1].Do(http.MethodPost, "/api/tasks/"+id+"/complete", worker.Key, `{"result":"kept"}`); status != http.StatusOK {
			t.Fatalf("complete: %d %s", status, text)
		}
	}

	waited := make(chan string, 1)
	go func() {
		_, text := servers[0].Do(http.MethodPost, "/api/execute", poster.Key, hire)
		waited <- text
	}()
	first := testutil.Receive(t, "the call of the endpoint", called)
	promised := subscribeExecution(t, servers[1], poster.Key, first)
	waitForChange(t, promised, "PROMISED")
	complete(first)
	waitForChange(t, promised, "SETTLED")
	if text := testutil.Receive(t, "the response", waited); !strings.Contains(text, `"result":"kept"`) {
		t.Errorf("the response to the waiting caller is %s", text)
	}

	status, text := servers[0].Do(http.MethodPost, "/api/execute", poster.Key, hire, "Prefer", "respond-async")
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	second := testutil.Receive(t, "the call of the endpoint", called)
	waitForChange(t, subscribeExecution(t, servers[1], poster.Key, second), "PROMISED")
	servers[0].Kill()
	complete(second)
	if got := readBalance(t, servers[1], poster.Key); got != startCredits-40 {
		t.Errorf("the hirer has %d credits", got)
	}
	servers[1].Verify()
}

// subscribeExecution returns the changes of a hire until the test or the hire ends.
func subscribeExecution(t *testing.T, server *testserver.Server, key, task string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testutil.Timeout)
	t.Cleanup(cancel)
	body := fmt.Sprintf(`{"query":"subscription { executionUpdated(taskId: \"%s\") { change } }"}`, task)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/graphql", strings.NewReader(body))
	testutil.Must(t, err)
	for name, value := range map[string]string{"Content-Type": "application/json", "Accept": "text/event-stream", "X-API-Key": key} {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	testutil.Must(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	changes := make(chan string, 10)
	go func() {
		defer close(changes)
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if _, change, ok := strings.Cut(lines.Text(), `"change":"`); ok {
				changes <- strings.Trim(change, `"}`)
			}
		}
	}()
	return changes
}

// waitForChange waits for a change of a hire.
func waitForChange(t *testing.T, changes <-chan string, want string) {
	t.Helper()
	for change := range changes {
		if change == want {
			return
		}
	}
	t.Fatalf("no change %s", want)
}
