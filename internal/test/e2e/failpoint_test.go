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

// failpoints are where the process fails, as the package failpoint is told of them.
func failpoints() []string {
	return []string{
		"post-written", "post-held", "accept-assigned", "complete-written", "complete-paid",
		"execute-hired", "execute-ran", "execute-settled", "deliver-due", "deliver-sent", "deliver-noted",
		"batch-run", "batch-committed",
	}
}

// TestFailpoints has the server panic, be killed and hang at every step of a task,
// a hire and a webhook. Its clients ask again with the same Idempotency-Key. In
// the end everything was done once, or refunded, and the webhook has come.
func TestFailpoints(t *testing.T) {
	t.Parallel()
	trusttest.SkipUnlessTrust(t)
	binary := os.Getenv(trusttest.FailpointsBinaryEnv)
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "agentmarket")
		build := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoints", "-o", binary, "agentmarket.space/server")
		if text, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	ways := []string{"panic", "kill", "stall"}
	t.Cleanup(func() {
		trusttest.Report(t, "failpoints", "%d steps, each with %s: everything done once or refunded", len(failpoints()), strings.Join(ways, ", "))
	})
	atOnce := make(chan struct{}, 4)
	for _, step := range failpoints() {
		for _, way := range ways {
			t.Run(step+" "+way, func(t *testing.T) {
				t.Parallel()
				atOnce <- struct{}{}
				defer func() { <-atOnce }()
				runWithFailpoint(t, binary, step, way)
			})
		}
	}
}

// runWithFailpoint has a task posted, accepted and completed and an agent hired while one
// step fails.
func runWithFailpoint(t *testing.T, binary, step, way string) {
	t.Helper()
	heard := &webhookRecorder{taskCounts: map[string]int{}, deliveryCounts: map[string]int{}}
	url, env := testserver.ServeTLS(t, heard)
	where := filepath.Join(t.TempDir(), "failpoint")
	f := &failpointClient{T: t, server: testserver.StartCommand(t, []string{binary}, append(append(env, storeSettings(t)...), quickRetries, "AGENTMARKET_FAILPOINT="+where)...)}
	poster := f.server.Register("Poster", nil)
	worker := f.server.Register("Worker", map[string]any{"capabilities": []string{"work"}, "webhookUrl": url + "/webhook", "endpointUrl": url + "/execute"})
	if err := os.WriteFile(where, []byte(step+"="+way), 0o600); err != nil {
		t.Fatal(err)
	}

	task := f.do(poster, postCall()).taskID()
	f.do(worker, acceptCall(task))
	f.do(worker, completeCall(task))
	hired := f.do(poster, executeCall(worker.ID)).errorCode == ""
	testutil.Eventually(t, "the webhook has come and the step is reached", func() bool {
		f.restartIfExited()
		heard.mu.Lock()
		defer heard.mu.Unlock()
		return f.reached && heard.taskCounts[task] == 1
	})
	spent, earned := budget, wage
	if hired {
		spent, earned = 2*budget, 2*wage
	}
	for key, credits := range map[string]int{poster.Key: 100 - spent, worker.Key: 100 + earned} {
		var status int
		var text string
		testutil.Eventually(t, "the server answers", func() bool {
			f.restartIfExited()
			status, text = f.server.Do(http.MethodGet, "/api/wallet", key, "")
			return status != 0
		})
		if want := fmt.Sprintf(`"balance":%d}`, credits); status != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(text), want) {
			t.Errorf("a wallet is %d %s, want %s", status, text, want)
		}
	}
	f.server.Verify()
}

// failpointClient is a server that fails once.
type failpointClient struct {
	*testing.T
	server           *testserver.Server
	reached          bool
	requests         int
	lastRestartedFor int // the last request that the server was started again for
}

// do takes a step of a client, as often as it takes to be answered. A server that
// is gone is started again, and so is one that lost a hire in a panic: the next
// start refunds it, time does too.
func (f *failpointClient) do(agent testserver.Agent, s apiCall) (a apiResponse) {
	f.Helper()
	f.requests++
	testutil.Eventually(f.T, s.path+" is answered", func() bool {
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

// restartOnce starts the server again, once for a request: on PostgreSQL it is not known for
// gone, and its hires are not refunded, before it has been silent for 15 seconds.
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

// restartIfExited sees whether the step was reached, and starts a server that is gone.
func (f *failpointClient) restartIfExited() {
	f.Helper()
	f.reached = f.reached || strings.Contains(f.server.Log(), "failpoint ")
	select {
	case <-f.server.Exited():
		f.server.Restart()
	default:
	}
}
