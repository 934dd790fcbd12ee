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

const hugeCredits = 100_000 // of each agent, so that no refusal is for want of them

// invalidRequest is a request that must be turned down, and the code it must get.
type invalidRequest struct {
	method, path, body string
	header             string // "Name: value" beside the usual ones; empty for none
	code               string
}

// TestInvalidInput sends everything that is wrong to both doors while somebody else
// does honest work: all of it is refused in the door's shape with the code that
// says why, nothing has moved, and the honest work is unhurt.
func TestInvalidInput(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", hugeCredits))
	sender := server.Register("Sender", nil)
	victim := server.Register("Victim", nil)
	task := mustPostTask(t, server, victim.Key, "work").ID
	other := mustPostTask(t, server, sender.Key, "work").ID
	if status, text := server.Do(http.MethodPost, "/api/tasks/"+task+"/accept", sender.Key, ""); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}

	stop := make(chan struct{})
	var honest sync.WaitGroup
	honest.Go(func() { runValidTraffic(t, server, stop) })
	for _, a := range slices.Concat(invalidBodies(), invalidFields(task, victim.ID), invalidRoutes(task, other), invalidListQueries()) {
		checkRESTError(t, server, sender.Key, a)
	}
	for _, a := range slices.Concat(invalidGraphQLRequests(), invalidOperations(task, other), invalidVariables()) {
		checkGraphQLError(t, server, sender.Key, a)
	}
	close(stop)
	honest.Wait()

	var data struct {
		Task struct{ Status string }
	}
	if err := server.Query("", `query($id: ID!) { task(id: $id) { status } }`, map[string]any{"id": task}, &data); err != nil || data.Task.Status != "ASSIGNED" {
		t.Errorf("the task is %s, %v", data.Task.Status, err)
	}
	for _, agent := range []testserver.Agent{sender, victim} {
		status, text := server.Do(http.MethodGet, "/api/wallet", agent.Key, "")
		if want := fmt.Sprintf(`"balance":%d}`, hugeCredits-25); status != http.StatusOK || !strings.HasSuffix(text, want) {
			t.Errorf("a wallet is %d %s, want %s", status, text, want)
		}
	}
	server.Verify()
	if log := server.Log(); strings.Contains(log, `"level":"ERROR"`) || strings.Contains(log, `"level":"WARN"`) || strings.Contains(log, "panic") {
		t.Errorf("the log has errors:\n%s", log)
	}
}

// send sends an attempt. A header of its own takes the place of a usual one.
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

// restStatuses are what REST says with each code.
func restStatuses() map[string]int {
	return map[string]int{
		"INVALID_INPUT": 400, "UNAUTHENTICATED": 401, "FORBIDDEN": 403, "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "CONFLICT": 409,
		"PAYLOAD_TOO_LARGE": 413, "UNSUPPORTED_MEDIA_TYPE": 415, "IDEMPOTENCY_KEY_REUSED": 422, "INSUFFICIENT_CREDITS": 402,
	}
}

// checkRESTError wants an attempt turned down in the envelope. Under /api that has
// the caller's balance, for whoever has shown a key: it has not moved.
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

// checkGraphQLError wants an attempt turned down with errors that have a code,
// and nothing else.
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

// runValidTraffic posts, accepts and completes until it is told to stop.
func runValidTraffic(t *testing.T, server *testserver.Server, stop <-chan struct{}) {
	t.Helper()
	poster, worker := server.Register("Honest poster", nil), server.Register("Honest worker", nil)
	for n := 1; ; n++ {
		status, text := server.Do(http.MethodPost, "/api/tasks", poster.Key, `{"title":"T","description":"D","budget":10}`)
		var posted struct{ Data struct{ ID string } }
		if err := json.Unmarshal([]byte(text), &posted); err != nil || status != http.StatusOK {
			t.Errorf("honest work: %d %s", status, text)
			return
		}
		if status, text := server.Do(http.MethodPost, "/api/tasks/"+posted.Data.ID+"/accept", worker.Key, ""); status != http.StatusOK {
			t.Errorf("honest work: %d %s", status, text)
		}
		status, text = server.Do(http.MethodPost, "/api/tasks/"+posted.Data.ID+"/complete", worker.Key, `{"result":"Done."}`)
		if want := fmt.Sprintf(`"balance":%d}`, hugeCredits+9*n); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("honest work: %d %s, want %s", status, text, want)
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}
