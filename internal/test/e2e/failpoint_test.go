package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// failpoints are the names of the steps of the package failpoint.
func failpoints() []string {
	return []string{
		"post-written", "post-held", "accept-assigned", "complete-written", "complete-paid",
		"execute-hired", "execute-ran", "execute-settled", "deliver-due", "deliver-sent", "deliver-noted",
		"batch-run", "batch-committed",
	}
}

// TestFailpoints makes the server panic, exit or hang at every step of a task, a hire and a
// webhook. Clients retry with the same Idempotency-Key. In the end each change was applied
// once or refunded, and the webhook has arrived.
func TestFailpoints(t *testing.T) {
	t.Parallel()
	trusttest.SkipUnlessTrust(t)
	binary := failpointsBinary(t)
	faults := []string{"panic", "kill", "stall"}
	t.Cleanup(func() {
		trusttest.Report(t, "failpoints", "%d steps, each with %s: every change applied once or refunded", len(failpoints()), strings.Join(faults, ", "))
	})
	slots := make(chan struct{}, 4)
	for _, step := range failpoints() {
		for _, fault := range faults {
			t.Run(step+" "+fault, func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				runWithFailpoint(t, binary, step, fault)
			})
		}
	}
}

// failpointsBinary returns the path of a server with failpoints.
func failpointsBinary(t *testing.T) string {
	t.Helper()
	if binary := os.Getenv(trusttest.FailpointsBinaryEnv); binary != "" {
		return binary
	}
	binary := filepath.Join(t.TempDir(), "agentmarket")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoints", "-o", binary, "agentmarket.space/server")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return binary
}

// runWithFailpoint posts, accepts and completes a task and hires an agent while one step
// fails.
func runWithFailpoint(t *testing.T, binary, step, fault string) {
	t.Helper()
	recorder := &webhookRecorder{taskCounts: map[string]int{}, deliveryCounts: map[string]int{}}
	url, env := testserver.ServeTLS(t, recorder)
	failpointFile := filepath.Join(t.TempDir(), "failpoint")
	f := &failpointClient{T: t, server: testserver.StartCommand(t, []string{binary}, append(append(env, storeSettings(t)...), quickRetries, "AGENTMARKET_FAILPOINT="+failpointFile)...)}
	poster := f.server.Register("Poster", nil)
	worker := f.server.Register("Worker", map[string]any{"capabilities": []string{"work"}, "webhookUrl": url + "/webhook", "endpointUrl": url + "/execute"})
	if err := os.WriteFile(failpointFile, []byte(step+"="+fault), 0o600); err != nil {
		t.Fatal(err)
	}

	task := f.do(poster, postCall()).taskID()
	f.do(worker, acceptCall(task))
	f.do(worker, completeCall(task))
	hired := f.do(poster, executeCall(worker.ID)).errorCode == ""
	testutil.Eventually(t, "the webhook to arrive and the step to be reached", func() bool {
		f.restartIfExited()
		recorder.mu.Lock()
		defer recorder.mu.Unlock()
		return f.reached && recorder.taskCounts[task] == 1
	})
	spent, earned := budget, wage
	if hired {
		spent, earned = 2*budget, 2*wage
	}
	for key, credits := range map[string]int{poster.Key: 100 - spent, worker.Key: 100 + earned} {
		var status int
		var text string
		testutil.Eventually(t, "a response", func() bool {
			f.restartIfExited()
			status, text = f.server.Do(http.MethodGet, "/api/wallet", key, "")
			return status != 0
		})
		if want := fmt.Sprintf(`"balance":%d}`, credits); status != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(text), want) {
			t.Errorf("wallet: %d %s, want %s", status, text, want)
		}
	}
	f.server.Verify()
}

// failpointClient is a client of a server that fails once.
type failpointClient struct {
	*testing.T
	server           *testserver.Server
	reached          bool
	requests         int
	lastRestartedFor int // number of the last request for which the server was restarted
}

// do sends a call until there is a response. It restarts a server that has exited, or that
// lost a hire in a panic: the next start refunds the hire.
func (f *failpointClient) do(agent testserver.Agent, s apiCall) (a apiResponse) {
	f.Helper()
	f.requests++
	testutil.Eventually(f.T, s.path+" to respond", func() bool {
		status, text := f.server.Do(http.MethodPost, s.path, agent.Key, s.body, "Idempotency-Key", fmt.Sprint("request ", f.requests))
		f.restartIfExited()
		a = apiResponse{}
		if status == 0 || status == http.StatusInternalServerError {
			return false
		}
		if strings.Contains(text, "is still running") {
			f.restartOnce()
			return false
		}
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			f.Fatalf("%s: %d %s", s.path, status, text)
		}
		if a.errorCode = a.Code; a.errorCode != "" && (a.errorCode != "EXECUTION_FAILED" || s.path != "/api/execute") {
			f.Fatalf("%s: %d %s", s.path, status, text)
		}
		return true
	})
	return a
}

// restartOnce restarts the server once for each request. On PostgreSQL the hires of the old
// process are refunded when its lease of 15 seconds expires.
func (f *failpointClient) restartOnce() {
	f.Helper()
	if f.lastRestartedFor < f.requests {
		f.lastRestartedFor = f.requests
		f.server.Kill()
		f.server.Restart()
		return
	}
	<-time.After(retryDelay)
}

// restartIfExited records whether the step was reached, and restarts a server that has
// exited.
func (f *failpointClient) restartIfExited() {
	f.Helper()
	f.reached = f.reached || strings.Contains(f.server.Log(), "failpoint ")
	select {
	case <-f.server.Exited():
		f.server.Restart()
	default:
	}
}
