package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/e2e/program"
)

// TestBadInput sends everything that is wrong to both doors while somebody else
// does honest work: all of it is refused in the door's shape with a code that
// blames the sender, nothing has moved, and the honest work is unhurt.
func TestBadInput(t *testing.T) {
	t.Parallel()
	server := program.Start(t, "AGENTMARKET_STARTING_CREDITS=100000")
	sender := server.Register("Sender", map[string]any{"capabilities": []string{"x"}})
	victim := server.Register("100%_'; DROP TABLE agents; --", map[string]any{"capabilities": []string{"50%_off"}})
	task := post(t, server, victim.Key, "work")

	stop := make(chan struct{})
	var honest sync.WaitGroup
	honest.Go(func() { workHonestly(t, server, stop) })
	for _, body := range wrongBodies() {
		for _, path := range []string{"/api/agents/register", "/api/tasks", "/api/tasks/" + task.ID + "/complete", "/api/execute", "/graphql"} {
			wantRefused(t, server, path, sender.Key, body)
		}
	}
	for _, operation := range wrongOperations(task.ID) {
		body, err := json.Marshal(map[string]string{"query": operation})
		if err != nil {
			t.Fatal(err)
		}
		wantRefused(t, server, "/graphql", sender.Key, string(body))
	}
	for query, found := range map[string]int{ // wildcards and quotes stand for themselves
		"/api/agents?capability=50%25_off": 1, "/api/agents?capability=50%25": 0, "/api/agents?capability=%25": 0, "/api/agents?capability=______": 0,
		"/api/agents?capability=x'%20OR%20'1'='1": 0, "/api/tasks?capability=w%25": 0, "/api/tasks?capability=%22%3B--": 0, "/api/tasks?capability=work": 1,
	} {
		status, text := server.Do(http.MethodGet, query, "", "")
		var answer struct{ Data []struct{ ID string } }
		if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK || len(answer.Data) != found {
			t.Errorf("%s: %d, %d found, want %d", query, status, len(answer.Data), found)
		}
	}
	close(stop)
	honest.Wait()

	status, text := server.Do(http.MethodGet, "/api/wallet", sender.Key, "")
	if status != http.StatusOK || !strings.Contains(text, `"balance":100000}`) {
		t.Errorf("the sender's wallet: %d %s", status, text)
	}
	server.Verify()
	if log := server.Log(); strings.Contains(log, `"level":"ERROR"`) || strings.Contains(log, "panic") {
		t.Errorf("the log has errors:\n%s", log)
	}
}

// wrongBodies are wrong wherever they are sent to.
func wrongBodies() []string {
	return []string{
		"{", "}", `{"a"`, "null", "[]", `"text"`, "7", "nonsense", `{"title":`, "\x00", "{\"title\":\"\xff\xfe\"}", "{\"query\":\"\x00\"}",
		`{} {}`, strings.Repeat(`{"a":`, 20_000), strings.Repeat("[", 200_000), `{"query":7,"name":7,"title":7,"result":7,"agent_id":7}`,
		`{"query":"` + strings.Repeat("a", 5<<20) + `"}`,
	}
}

// wrongOperations are GraphQL that is refused: each kind of wrong value in each
// place that takes one, and documents that are too much.
func wrongOperations(taskID string) []string {
	var all []string
	for _, number := range []string{"-1", "0", "1", "1.5", "1e400", "99999999999999999999", `"25"`, "true", "null", "[]", "{}"} {
		all = append(all,
			fmt.Sprintf(`mutation { postTask(input: {title: "T", description: "D", budget: %s}) { task { id } } }`, number),
			fmt.Sprintf(`mutation { execute(input: {agentId: "x", taskDescription: "D", budget: %s}) { result } }`, number))
	}
	for _, text := range []string{`""`, `" "`, `"\u0000"`, "7", "null", "[1]", `"` + strings.Repeat("a", 300_000) + `"`} {
		all = append(all,
			fmt.Sprintf(`mutation { postTask(input: {title: %s, description: "D", budget: 25}) { task { id } } }`, text),
			fmt.Sprintf(`mutation { completeTask(input: {taskId: %q, result: %s}) { task { id } } }`, taskID, text),
			fmt.Sprintf(`mutation { registerAgent(input: {name: %s}) { apiKey } }`, text),
			fmt.Sprintf(`mutation { acceptTask(input: {taskId: %s}) { task { id } } }`, text))
	}
	for _, id := range []string{"unknown", "../../etc/passwd", "' OR '1'='1", "%", "00000000-0000-0000-0000-000000000000"} {
		all = append(all, fmt.Sprintf("{ task(id: %q) { id } }", id), fmt.Sprintf("mutation { cancelTask(input: {taskId: %q}) { task { id } } }", id))
	}
	for _, cursor := range []string{"nonsense", "-1", "' OR 1=1", "99999999999999999999"} {
		all = append(all, fmt.Sprintf("{ tasks(first: 5, after: %q) { nodes { id } } }", cursor))
	}
	return append(all,
		"", "{", "{ unknown }", "{ tasks(first: 0) { nodes { id } } }", "{ tasks(first: 1000000) { nodes { id } } }", "subscription { taskPosted { cursor } }",
		"{ "+strings.Repeat("a: agents { nodes { id } } ", 2000)+"}", strings.Repeat("{ agents { nodes ", 500), "query($a: Int!) { tasks(first: $a) { nodes { id } } }",
		"fragment F on Query { ...F } { ...F }",
	)
}

// wantRefused wants a request turned down in the shape of its door, for a reason
// that the sender can mend.
func wantRefused(t *testing.T, server *program.Server, path, key, body string) {
	t.Helper()
	status, text := server.Do(http.MethodPost, path, key, body)
	var answer struct {
		Success *bool
		Error   string
		Code    string
		Data    any
		Errors  []struct {
			Message    string
			Extensions struct{ Code string }
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Errorf("%s %.80q: %d, %v: %.300s", path, body, status, err, text)
		return
	}
	code, shaped := answer.Code, answer.Success != nil && !*answer.Success && answer.Error != "" && status >= 400 && status < 500
	if path == "/graphql" {
		code, shaped = "", len(answer.Errors) > 0 && status < 500
		for _, e := range answer.Errors {
			code = e.Extensions.Code
			shaped = shaped && e.Message != "" && code != ""
		}
	}
	if !shaped || code == "" || code == "INTERNAL" {
		t.Errorf("%s %.80q: %d %.300s", path, body, status, text)
	}
}

// workHonestly posts, accepts and completes until it is told to stop.
func workHonestly(t *testing.T, server *program.Server, stop <-chan struct{}) {
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
		if want := fmt.Sprintf(`"balance":%d}`, 100_000+9*n); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("honest work: %d %s, want %s", status, text, want)
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}
