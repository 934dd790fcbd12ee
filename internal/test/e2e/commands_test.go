package e2e_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// runCommand runs the program with an API key and returns its output and exit code.
func runCommand(t *testing.T, server *testserver.Server, key string, args ...string) (text string, code int) {
	t.Helper()
	return testserver.Run(t, t.TempDir(), append(args, "--url", server.URL, "--key", key)...)
}

// runJSONCommand runs a command that must succeed and decodes its JSON output.
func runJSONCommand(t *testing.T, server *testserver.Server, key string, args ...string) map[string]any {
	t.Helper()
	text, code := runCommand(t, server, key, append(args, "--json")...)
	var answer map[string]any
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != 0 {
		t.Fatalf("%q ended with %d and printed %s: %v", args, code, text, err)
	}
	return answer
}

// TestCommands takes a task from posting to rating with the commands.
func TestCommands(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	worker := runJSONCommand(t, server, "", "register", "Worker", "--capability", "coding,go")
	key := fmt.Sprint(worker["apiKey"])
	poster := fmt.Sprint(runJSONCommand(t, server, "", "register", "Poster")["apiKey"])
	task := fmt.Sprint(runJSONCommand(t, server, poster, "tasks", "post", "Shout \x1b[31mloud", "--budget", "25", "--capability", "coding")["id"])
	cancelled := fmt.Sprint(runJSONCommand(t, server, poster, "tasks", "post", "Never mind", "--budget", "5")["id"])
	for _, step := range []struct {
		key, status string
		args        []string
	}{
		{key, "ASSIGNED", []string{"tasks", "accept", task}},
		{key, "OPEN", []string{"tasks", "release", task}},
		{key, "ASSIGNED", []string{"tasks", "accept", task}},
		{key, "COMPLETED", []string{"tasks", "complete", task, "DONE"}},
		{poster, "COMPLETED", []string{"tasks", "rate", task, "5", "--comment", "Well done"}},
		{poster, "CANCELLED", []string{"tasks", "cancel", cancelled}},
		{"", "COMPLETED", []string{"tasks", "show", task}},
	} {
		if got := runJSONCommand(t, server, step.key, step.args...)["status"]; got != step.status {
			t.Errorf("after %q the task is %v", step.args, got)
		}
	}
	for _, table := range []struct {
		key  string
		args []string
		want []string
	}{
		{"", []string{"tasks"}, []string{"STATUS", "completed", "cancelled", "Shout  [31mloud"}},
		{"", []string{"tasks", "list", "--status", "completed", "--capability", "coding"}, []string{"Shout"}},
		{"", []string{"agents", "--search", "work"}, []string{"Worker", "5.0", "coding,go"}},
		{key, []string{"tasks", "show", task}, []string{"RESULT", "DONE", "WORKER"}},
		{key, []string{"wallet"}, []string{"122", "+22", "payment: Shout"}},
		{poster, []string{"wallet", "--limit", "1"}, []string{"75", "HELD"}},
		{"", []string{"agents", "--limit", "1"}, []string{"More results: --after "}},
	} {
		text, code := runCommand(t, server, table.key, table.args...)
		for _, want := range table.want {
			if code != 0 || !strings.Contains(text, want) || strings.Contains(text, "\x1b") {
				t.Errorf("%q ended with %d without %q:\n%q", table.args, code, want, text)
			}
		}
	}
	if text, code := testserver.Run(t, t.TempDir(), "health", "--url", server.URL); code != 0 || text != "ready\n" {
		t.Errorf("health ended with %d: %s", code, text)
	}
	server.Verify()
}

// TestCommands_errors: a command that fails says in one line what to do, exits with the
// documented code and changes nothing.
func TestCommands_errors(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	agent := server.Register("Agent", nil)
	for _, row := range []struct {
		key, want string
		code      int
		args      []string
	}{
		{"", "set --key", 1, []string{"tasks", "post", "x", "--budget", "5"}},
		{"", "set --key", 1, []string{"wallet"}},
		{"", "set --key", 1, []string{"worker", "--exec", "cat"}},
		{agent.Key, "set --capability", 1, []string{"worker", "--exec", "cat"}},
		{agent.Key, "--parallel must be", 2, []string{"worker", "--exec", "cat", "--parallel", "0"}},
		{agent.Key, "--exec", 2, []string{"worker"}},
		{agent.Key, "--exec must not be empty", 2, []string{"worker", "--exec", " "}},
		{strings.Repeat("0", 64), "UNAUTHENTICATED", 1, []string{"wallet"}},
		{strings.Repeat("0", 64), "UNAUTHENTICATED", 1, []string{"listen"}},
		{agent.Key, "INVALID_INPUT", 1, []string{"tasks", "post", "x", "--budget", "1"}},
		{agent.Key, "agentmarket wallet", 1, []string{"tasks", "post", "x", "--budget", "101"}},
		{agent.Key, "not valid UTF-8", 2, []string{"tasks", "post", "caf\xe9", "--budget", "5"}},
		{agent.Key, "not valid UTF-8", 2, []string{"tasks", "--search=\xff"}},
		{agent.Key, "--budget", 2, []string{"tasks", "post", "x"}},
		{agent.Key, "--budget", 2, []string{"tasks", "post", "x", "--budget", "much"}},
		{agent.Key, "NOT_FOUND", 1, []string{"tasks", "accept", "unknown"}},
		{agent.Key, "NOT_FOUND", 1, []string{"execute", "unknown", "work", "--budget", "20"}},
		{agent.Key, "--status", 2, []string{"tasks", "--status", "lost"}},
		{agent.Key, "INVALID_INPUT", 1, []string{"tasks", "--limit", "101"}},
		{agent.Key, "INVALID_INPUT", 1, []string{"listen", "--after", "unknown"}},
		{agent.Key, "unexpected argument", 2, []string{"tasks", "list", "lisen"}},
	} {
		if text, code := runCommand(t, server, row.key, row.args...); code != row.code || !strings.Contains(text, row.want) {
			t.Errorf("%q ended with %d, want %d, and printed %q without %q", row.args, code, row.code, text, row.want)
		}
	}
	if balance := runJSONCommand(t, server, agent.Key, "wallet")["wallet"]; !strings.Contains(fmt.Sprint(balance), "balance:100") {
		t.Errorf("the wallet is %v", balance)
	}
	for _, args := range [][]string{{"agents"}, {"health"}} {
		if text, code := testserver.Run(t, t.TempDir(), append(args, "--url", "http://127.0.0.1:1")...); code != 1 || !strings.HasPrefix(text, "agentmarket: no") {
			t.Errorf("%q without a market ended with %d: %s", args, code, text)
		}
	}
}

// TestCommands_wrongURL: a command ends with an error if its URL is not a market. That
// includes listen, which waits for a market that is down.
func TestCommands_wrongURL(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	for _, args := range [][]string{{"agents"}, {"listen"}} {
		text, code := testserver.Run(t, t.TempDir(), append(args, "--url", server.URL+"/api")...)
		if code != 1 || !strings.Contains(text, "/api is not an AgentMarket server (status 404 Not Found): set --url") {
			t.Errorf("%q ended with %d: %s", args, code, text)
		}
	}
}

// startCommand starts a command that runs until the test ends, and returns its output by
// line.
func startCommand(t *testing.T, server *testserver.Server, key string, args ...string) *bufio.Scanner {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testserver.BinaryPath(), append(args, "--url", server.URL)...)
	cmd.Env = append(os.Environ(), "AGENTMARKET_API_KEY="+key)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() > 0 {
			t.Errorf("%q: %v", args, err)
		}
	})
	return bufio.NewScanner(out)
}

// readLine returns the next line of a command.
func readLine(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("no more output: %v", lines.Err())
	}
	return lines.Text()
}

// TestListen: listen prints every task once and in order, although the server is killed and
// restarted.
func TestListen(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t, "AGENTMARKET_STARTING_CREDITS=1000")
	poster, listener := server.Register("Poster", nil), server.Register("Listener", nil)
	first := server.PostTask(poster.Key, "x").ID
	lines := startCommand(t, server, listener.Key, "listen", "--json", "--capability", "x", "--after", "0")
	expectTask := func(want string) {
		t.Helper()
		var event struct{ Task struct{ ID string } }
		if text := readLine(t, lines); json.Unmarshal([]byte(text), &event) != nil || event.Task.ID != want {
			t.Errorf("received %s, want task %s", text, want)
		}
	}
	expectTask(first)
	for range 3 {
		var posted []string
		for range 3 {
			posted = append(posted, server.PostTask(poster.Key, "x").ID)
		}
		server.Kill()
		server.Restart()
		for _, id := range posted {
			expectTask(id)
		}
	}
}

// TestWorker: the worker command completes open, newly posted and released tasks once each
// and is paid, although the server is killed. It releases a task if its program fails or
// writes an invalid result. Its program does not get the API key.
func TestWorker(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	poster := server.Register("Poster", nil)
	worker := server.Register("Worker", map[string]any{"capabilities": []string{"x"}})
	ran := filepath.Join(t.TempDir(), "ran")
	first := server.PostTask(poster.Key, "x").ID
	lines := startCommand(t, server, worker.Key, "worker", "--json", "--exec",
		`echo "$AGENTMARKET_TASK" >> `+ran+`; read words; case "$words" in fail) exit 1 ;; binary) printf '\377' ;; `+
			`large) head -c 2000000 /dev/zero | tr '\0' x ;; *) printf '%s %s' "$words" "$AGENTMARKET_API_KEY" ;; esac`)
	done := func() string {
		t.Helper()
		var completed struct {
			Task struct{ ID, Status, Result string }
		}
		if text := readLine(t, lines); json.Unmarshal([]byte(text), &completed) != nil || completed.Task.Status != "COMPLETED" ||
			!strings.HasSuffix(completed.Task.Result, " ") {
			t.Errorf("printed %s", text)
		}
		return completed.Task.ID
	}
	if got := done(); got != first {
		t.Errorf("completed %s, want %s", got, first)
	}
	var failing []string
	for _, how := range []string{"fail", "binary", "large"} {
		var task struct{ Data struct{ ID string } }
		status, text := server.Do(http.MethodPost, "/api/tasks", poster.Key, `{"title":"Fail","description":"`+how+`","budget":5,"required_capabilities":["x"]}`)
		if err := json.Unmarshal([]byte(text), &task); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
		failing = append(failing, task.Data.ID)
	}
	posted := map[string]bool{server.PostTask(poster.Key, "x").ID: true}
	server.Kill()
	server.Restart()
	posted[server.PostTask(poster.Key, "x").ID] = true
	for len(posted) > 0 {
		id := done()
		if !posted[id] {
			t.Errorf("completed %s", id)
		}
		delete(posted, id)
	}
	for _, id := range failing {
		if _, text := server.Do(http.MethodGet, "/api/tasks/"+id, "", ""); !strings.Contains(text, `"status":"open"`) {
			t.Errorf("a failed task is %s, want it open", text)
		}
	}
	log, err := os.ReadFile(ran)
	if n := strings.Count(string(log), "\n"); err != nil || n != 6 {
		t.Errorf("the command ran %d times, want 6 (%v)", n, err)
	}
	server.Verify()
}

// TestWorker_manyOpenTasks: the worker command finds the oldest task that it may accept,
// whatever the capability and however many newer tasks it may not accept.
func TestWorker_manyOpenTasks(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t, "AGENTMARKET_STARTING_CREDITS=10000")
	poster := server.Register("Poster", nil)
	worker := server.Register("Worker", map[string]any{"capabilities": []string{"a", "b"}})
	oldest, second := server.PostTask(poster.Key, "b").ID, server.PostTask(poster.Key, "a", "b").ID
	const moreThanAPage = 101
	for range moreThanAPage {
		server.PostTask(worker.Key, "a", "b")
	}
	for _, want := range []string{oldest, second} {
		lines := startCommand(t, server, worker.Key, "worker", "--once", "--json", "--exec", "echo done")
		if got := readLine(t, lines); !strings.Contains(got, want) {
			t.Errorf("completed %s, want the task %s", got, want)
		}
	}
}

// TestListen_forwardTo: listen forwards events to a local receiver over HTTP in the format
// and with the signatures of webhooks; trigger sends a sample.
func TestListen_forwardTo(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	received := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); err != nil || r.Header.Get("X-AgentMarket-Signature") != want {
			t.Errorf("signature %q, want %q (%v)", r.Header.Get("X-AgentMarket-Signature"), want, err)
		}
		hook, err := standardwebhooks.NewWebhook(secret)
		if err != nil || hook.Verify(body, r.Header) != nil {
			t.Errorf("the standard signature is invalid (%v)", err)
		}
		received <- r.Header.Get("X-AgentMarket-Event") + " " + string(body)
		if strings.Contains(string(body), "Sample task") {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(receiver.Close)
	server := testserver.Start(t)
	poster := server.Register("Poster", nil)
	id := server.PostTask(poster.Key, "x").ID
	lines := startCommand(t, server, "", "listen", "--after", "0", "--forward-to", receiver.URL+"/hook", "--secret", secret)
	readLine(t, lines)
	if got := testutil.Receive(t, "a webhook", received); !strings.HasPrefix(got, `task.posted {"event":"task.posted","task":{"id":"`+id+`",`) || !strings.HasSuffix(got, `"marketplace_url":"`+server.URL+`"}`) {
		t.Errorf("received %s", got)
	}
	text, code := testserver.Run(t, t.TempDir(), "trigger", "task.posted", receiver.URL, "--secret", secret)
	if got := testutil.Receive(t, "a webhook", received); code != 1 || !strings.Contains(text, "418") || !strings.Contains(got, "Sample task") {
		t.Errorf("trigger ended with %d and printed %s", code, text)
	}
	for _, args := range [][]string{{"listen", "--forward-to", "here"}, {"trigger", "task.posted", "ftp://here"}} {
		if text, code := testserver.Run(t, t.TempDir(), args...); code != 2 || !strings.Contains(text, "is not a URL") {
			t.Errorf("%q ended with %d: %s", args, code, text)
		}
	}
	for _, args := range [][]string{{"listen", "--forward-to", receiver.URL}, {"trigger", "task.posted", receiver.URL}} {
		if text, code := testserver.Run(t, t.TempDir(), append(args, "--secret", "no base64")...); code != 2 || !strings.Contains(text, "--secret") {
			t.Errorf("%q ended with %d: %s", args, code, text)
		}
	}
	if text, code := testserver.Run(t, t.TempDir(), "trigger", "task.lost", receiver.URL); code != 2 {
		t.Errorf("an unknown event ended with %d: %s", code, text)
	}
}

// TestOpenAPICommand_matchesServer: the openapi command prints what the server returns for
// /openapi.json.
func TestOpenAPICommand_matchesServer(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	_, served := server.Do(http.MethodGet, "/openapi.json", "", "")
	if text, code := testserver.Run(t, t.TempDir(), "openapi", "--public-url", server.URL+"/"); code != 0 || text != served {
		t.Errorf("ended with %d and printed %s, want %s", code, text, served)
	}
}

// TestVerify_progress: verify shows its progress on a terminal only.
func TestVerify_progress(t *testing.T) {
	t.Parallel()
	script := testserver.RequireTool(t, "script")
	server := testserver.Start(t)
	server.Register("Agent", nil)
	server.Stop()
	verify := testserver.BinaryPath() + " verify"
	cmd := exec.CommandContext(t.Context(), script, "-q", "-e", "-c", verify, os.DevNull)
	cmd.Dir = server.Dir
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "recomputing the ledger") || !strings.Contains(string(output), `"violations"`) {
		t.Errorf("on a terminal: %v: %q", err, output)
	}
	if text, code := testserver.Run(t, server.Dir, "verify"); code != 0 || !strings.HasPrefix(text, "{") || strings.Contains(text, "recomputing") {
		t.Errorf("without a terminal: ended with %d: %q", code, text)
	}
}
