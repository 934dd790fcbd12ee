package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

const hugeCredits = 100_000 // so that nothing fails with INSUFFICIENT_CREDITS

// invalidRequest is a request that must fail with a code.
type invalidRequest struct {
	method, path, body string
	header             string // "Name: value" added to the default headers; may be empty
	code               string
}

// TestInvalidInput sends invalid requests over REST and GraphQL while other agents trade.
// Each is rejected in the documented format with its code, no balance changes, and the
// other agents are not affected.
func TestInvalidInput(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", hugeCredits))
	sender := server.Register("Sender", nil)
	victim := server.Register("Victim", nil)
	task := server.PostTask(victim.Key, "work").ID
	other := server.PostTask(sender.Key, "work").ID
	if status, text := server.Do(http.MethodPost, "/api/tasks/"+task+"/accept", sender.Key, ""); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}

	stop := make(chan struct{})
	var traffic sync.WaitGroup
	traffic.Go(func() { runValidTraffic(t, server, stop) })
	for _, a := range slices.Concat(invalidBodies(), invalidFields(task, victim.ID), invalidRoutes(task, other), invalidListQueries()) {
		checkRESTError(t, server, sender.Key, a)
	}
	for _, a := range slices.Concat(invalidGraphQLRequests(), invalidOperations(task, other), invalidVariables()) {
		checkGraphQLError(t, server, sender.Key, a)
	}
	close(stop)
	traffic.Wait()

	var data struct {
		Task struct{ Status string }
	}
	if err := server.Query("", `query($id: ID!) { task(id: $id) { status } }`, map[string]any{"id": task}, &data); err != nil || data.Task.Status != "ASSIGNED" {
		t.Errorf("the task is %s, %v", data.Task.Status, err)
	}
	for _, agent := range []testserver.Agent{sender, victim} {
		status, text := server.Do(http.MethodGet, "/api/wallet", agent.Key, "")
		if want := fmt.Sprintf(`"balance":%d}`, hugeCredits-25); status != http.StatusOK || !strings.HasSuffix(text, want) {
			t.Errorf("wallet: %d %s, want %s", status, text, want)
		}
	}
	server.Verify()
	if log := server.Log(); strings.Contains(log, `"level":"ERROR"`) || strings.Contains(log, `"level":"WARN"`) || strings.Contains(log, "panic") {
		t.Errorf("the log has errors:\n%s", log)
	}
}

// send sends the request. Its header replaces a default one.
func (a invalidRequest) send(server *testserver.Server, key string) (status int, text string) {
	name, value, _ := strings.Cut(a.header, ": ")
	if name == "" {
		return server.Do(a.method, a.path, key, a.body)
	}
	return server.Do(a.method, a.path, key, a.body, name, value)
}

func (a invalidRequest) String() string {
	return fmt.Sprintf("%s %.100s %.100q %.100s", a.method, a.path, a.body, a.header)
}

// restStatuses are the HTTP statuses of the error codes.
func restStatuses() map[string]int {
	return map[string]int{
		"INVALID_INPUT": 400, "UNAUTHENTICATED": 401, "FORBIDDEN": 403, "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "CONFLICT": 409,
		"PAYLOAD_TOO_LARGE": 413, "UNSUPPORTED_MEDIA_TYPE": 415, "IDEMPOTENCY_KEY_REUSED": 422, "INSUFFICIENT_CREDITS": 402,
	}
}

// checkRESTError checks a REST error. Under /api it includes the caller's balance, which
// must not have changed.
func checkRESTError(t *testing.T, server *testserver.Server, key string, a invalidRequest) {
	t.Helper()
	status, text := a.send(server, key)
	var envelope struct {
		Success *bool
		Error   string
		Code    string
		Data    any
		Balance *int
	}
	err := json.Unmarshal([]byte(text), &envelope)
	shaped := err == nil && envelope.Success != nil && !*envelope.Success && envelope.Error != "" && envelope.Data == nil
	if a.code == "UNAUTHENTICATED" || !strings.HasPrefix(a.path, "/api") {
		shaped = shaped && envelope.Balance == nil
	} else {
		shaped = shaped && envelope.Balance != nil && *envelope.Balance == hugeCredits-25
	}
	if !shaped || envelope.Code != a.code || status != restStatuses()[a.code] {
		t.Errorf("%s: want %s in the envelope, got %d %.300s", a, a.code, status, text)
	}
}

// checkGraphQLError checks that a response has errors with a code and nothing else.
func checkGraphQLError(t *testing.T, server *testserver.Server, key string, a invalidRequest) {
	t.Helper()
	status, text := a.send(server, key)
	var answer struct {
		Data   map[string]any
		Errors []struct {
			Message    string
			Extensions struct{ Code string }
		}
	}
	err := json.Unmarshal([]byte(text), &answer)
	shaped := err == nil && len(answer.Errors) > 0 && (status == http.StatusOK || status == restStatuses()[a.code])
	for _, e := range answer.Errors {
		shaped = shaped && e.Message != "" && e.Extensions.Code == a.code
	}
	for _, value := range answer.Data {
		shaped = shaped && value == nil
	}
	if !shaped {
		t.Errorf("%s: want %s, got %d %.300s", a, a.code, status, text)
	}
}

// runValidTraffic posts, accepts and completes tasks until stop is closed.
func runValidTraffic(t *testing.T, server *testserver.Server, stop <-chan struct{}) {
	t.Helper()
	poster, worker := server.Register("Honest poster", nil), server.Register("Honest worker", nil)
	for n := 1; ; n++ {
		status, text := server.Do(http.MethodPost, "/api/tasks", poster.Key, `{"title":"T","description":"D","budget":10}`)
		var posted struct{ Data struct{ ID string } }
		if err := json.Unmarshal([]byte(text), &posted); err != nil || status != http.StatusOK {
			t.Errorf("valid request: %d %s", status, text)
			return
		}
		if status, text := server.Do(http.MethodPost, "/api/tasks/"+posted.Data.ID+"/accept", worker.Key, ""); status != http.StatusOK {
			t.Errorf("valid request: %d %s", status, text)
		}
		status, text = server.Do(http.MethodPost, "/api/tasks/"+posted.Data.ID+"/complete", worker.Key, `{"result":"Done."}`)
		if want := fmt.Sprintf(`"balance":%d}`, hugeCredits+9*n); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("valid request: %d %s, want %s", status, text, want)
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}
