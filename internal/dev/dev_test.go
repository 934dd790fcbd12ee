package dev_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/dev"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/goroutines"
	"agentmarket.space/server/internal/test/testutil"
)

// testSandbox is a running sandbox and its output.
type testSandbox struct {
	t                                                    *testing.T
	lines                                                chan string
	url, dir, key, secret, operator, servicesURL, output string
	stop                                                 func() error
}

// startSandbox runs a sandbox until stop or the end of the test, and parses its
// welcome text.
func startSandbox(t *testing.T, pace time.Duration) *testSandbox {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out, in := io.Pipe()
	r := &testSandbox{t: t, lines: make(chan string, 10_000)}
	done := make(chan error, 1)
	go func() {
		command := &dev.Command{Addr: "127.0.0.1:0", StartingCredits: 10_000, Pace: pace}
		err := command.Run(ctx, client.Streams{Out: in, Err: t.Output()})
		_ = in.Close()
		done <- err
	}()
	go func() {
		defer close(r.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			r.lines <- scanner.Text()
		}
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = r.stop() })
	r.waitForOutput(`Activity:`)
	for pattern, value := range map[string]*string{
		`Server +(http://\S+)`: &r.url, `Database +(\S+),`: &r.dir, `Operator +(\S+)`: &r.operator, `Webhooks +(https://[^/]+)/`: &r.servicesURL,
		`API_KEY=(\S+)`: &r.key, `WEBHOOK_SECRET=(\S+)`: &r.secret,
	} {
		match := regexp.MustCompile(pattern).FindStringSubmatch(r.output)
		if match == nil {
			t.Fatalf("no %s in the output:\n%s", pattern, r.output)
		}
		*value = match[1]
	}
	return r
}

// waitForOutput reads the output until it matches all patterns in order.
func (r *testSandbox) waitForOutput(patterns ...string) {
	r.t.Helper()
	timeout := time.After(testutil.Timeout)
	for len(patterns) > 0 {
		if regexp.MustCompile(patterns[0]).MatchString(r.output) {
			patterns = patterns[1:]
			continue
		}
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("the sandbox stopped before %s:\n%s", patterns[0], r.output)
			}
			r.output += line + "\n"
		case <-timeout:
			r.t.Fatalf("timed out waiting for %s:\n%s", patterns[0], r.output)
		}
	}
}

// request sends a request and decodes the data of the response.
func (r *testSandbox) request(method, path, key, body string) (status int, data map[string]any) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // only read
	var responseBody struct{ Data map[string]any }
	if err := json.NewDecoder(response.Body).Decode(&responseBody); err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, responseBody.Data
}

// graphql executes a document and returns the data, formatted with fmt.Sprint.
func (r *testSandbox) graphql(key, document string) (status int, text string) {
	r.t.Helper()
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		r.t.Fatal(err)
	}
	status, data := r.request(http.MethodPost, "/graphql", key, string(body))
	return status, fmt.Sprint(data)
}

// verifyLedger checks the ledger like 'agentmarket verify'.
func (r *testSandbox) verifyLedger() {
	r.t.Helper()
	err := database.Inspect(r.t.Context(), filepath.Join(r.dir, "agentmarket.db"), func(state *database.Snapshot) error {
		report, err := ledger.Verify(state)
		if err == nil && (len(report.Violations) > 0 || report.Transfers == 0) {
			err = fmt.Errorf("%+v", report)
		}
		return err
	})
	if err != nil {
		r.t.Errorf("verify the ledger: %v", err)
	}
}

// TestSandbox checks that the sample agents post, accept, complete and rate tasks and
// hire agents, that the developer's agent receives signed webhooks, and that no files
// or goroutines remain.
func TestSandbox(t *testing.T) {
	count := goroutines.Counter(t)
	before := count()
	sandbox := startSandbox(t, 20*time.Millisecond)
	sandbox.waitForOutput(` posts "`, ` accepts "`, ` completes "`, ` rates ".*" [345] of 5`, ` hires Echo: "A haiku`, ` hires Poet: "Packets`,
		`webhook task.posted to you: signature verified\n(    .*\n)*    X-Agentmarket-Delivery: `)
	if status, wallet := sandbox.request(http.MethodGet, "/api/wallet", sandbox.key, ""); status != http.StatusOK || wallet["balance"] != 10_000. {
		t.Errorf("got wallet %v (%d)", wallet, status)
	}
	sandbox.verifyLedger()
	if err := sandbox.stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(sandbox.output, " failed: ") {
		t.Errorf("sample agents failed:\n%s", sandbox.output)
	}
	if _, err := os.Stat(sandbox.dir); !os.IsNotExist(err) {
		t.Errorf("%s still exists (%v)", sandbox.dir, err)
	}
	http.DefaultClient.CloseIdleConnections()
	testutil.Eventually(t, "the end of all goroutines", func() bool { return count() <= before })
}

// TestClock_advance checks that advancing the clock expires leases and open tasks, and
// makes webhook retries due, which are signed with the system time. Only the operator
// key can advance the clock, and it cannot go back.
func TestClock_advance(t *testing.T) {
	t.Parallel()
	sandbox := startSandbox(t, 0)
	attempts := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		attempt := r.Header.Get("X-AgentMarket-Attempt")
		if attempt != "3" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		attempts <- attempt + " " + r.Header.Get("X-AgentMarket-Timestamp")
	}))
	t.Cleanup(receiver.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(receiver.URL, "http://"), ":")
	_, worker := sandbox.request(http.MethodPost, "/api/agents/register", "", `{"name":"Worker","capabilities":["x"],"webhook_url":"`+sandbox.servicesURL+`/to/`+port+`/hook"}`)
	key := fmt.Sprint(worker["api_key"])
	_, task := sandbox.request(http.MethodPost, "/api/tasks", sandbox.key, `{"title":"T","description":"D","budget":25,"required_capabilities":["x"]}`)
	id := "/api/tasks/" + fmt.Sprint(task["id"])
	if status, _ := sandbox.request(http.MethodPost, id+"/accept", key, ""); status != http.StatusOK {
		t.Fatalf("accept: got %d", status)
	}
	advance := func(by string, want int) {
		t.Helper()
		if status, _ := sandbox.request(http.MethodPost, "/operator/clock", sandbox.operator, `{"advance":"`+by+`"}`); status != want {
			t.Errorf("advance by %q: got %d, want %d", by, status, want)
		}
	}
	expectAttempt := func(want string) {
		t.Helper()
		select {
		case got := <-attempts:
			number, timestamp, _ := strings.Cut(got, " ")
			var at int64
			if _, err := fmt.Sscan(timestamp, &at); err != nil || number != want || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
				t.Errorf("attempt %s is signed at %s", got, timestamp)
			}
		case <-time.After(testutil.Timeout):
			t.Fatalf("timed out waiting for attempt %s", want)
		}
	}
	expectAttempt("1")
	expectAttempt("2")
	testutil.Eventually(t, "the record of the second attempt", func() bool {
		_, viewer := sandbox.graphql(key, `{ viewer { webhook { deliveries { nodes { attempts { number } } } } } }`)
		return strings.Count(viewer, "number") == 2
	})
	advance("25h", http.StatusOK)
	expectAttempt("3")
	if _, task := sandbox.request(http.MethodGet, id, "", ""); task["status"] != "open" {
		t.Errorf("after a day: got status %v", task["status"])
	}
	advance("168h", http.StatusOK)
	testutil.Eventually(t, "the refund", func() bool {
		_, wallet := sandbox.request(http.MethodGet, "/api/wallet", sandbox.key, "")
		return wallet["balance"] == 10_000.
	})
	for _, by := range []string{"-1h", "0s", "", "soon", "1000000h"} {
		advance(by, http.StatusBadRequest)
	}
	if status, _ := sandbox.request(http.MethodPost, "/operator/clock", sandbox.key, `{"advance":"1h"}`); status != http.StatusUnauthorized {
		t.Errorf("advance with an agent key: got %d", status)
	}
	sandbox.verifyLedger()
}

// TestStubServices checks the printed requests, the signature check, and the errors of
// the proxy.
func TestStubServices(t *testing.T) {
	t.Parallel()
	sandbox := startSandbox(t, 0)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // self-signed certificate
	t.Cleanup(transport.CloseIdleConnections)
	const secret, body = "whsec_+/+/", "{\"a\":\"\x1b[31m\"}"
	send := func(path, event string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, sandbox.servicesURL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now().Unix()
		signature, err := outbound.SignStandardWebhook(secret, "1", now, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"X-AgentMarket-Event": event, outbound.SignatureHeader: outbound.Sign(secret, []byte(body)),
			"webhook-id": "1", "webhook-timestamp": strconv.FormatInt(now, 10), "webhook-signature": signature,
		} {
			request.Header.Set(name, value)
		}
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	for path, want := range map[string]int{
		"/hooks/new": http.StatusNoContent, "/hooks/mine?secret=" + secret: http.StatusNoContent, "/hooks/new?secret=whsec_AAAA": http.StatusUnauthorized, "/hooks/new?secret=%01": http.StatusUnauthorized,
		"/hooks/you": http.StatusUnauthorized, "/echo": http.StatusUnauthorized, "/to/0/x": http.StatusNotFound, "/to/99999/x": http.StatusNotFound,
		"/to/here/x": http.StatusNotFound, "/to/" + closed.URL[strings.LastIndex(closed.URL, ":")+1:] + "/x": http.StatusBadGateway,
	} {
		if got := send(path, "test"); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
	sandbox.waitForOutput(`webhook test to new: signature not checked`, `webhook test to mine: signature verified`, `webhook test to you: signature INVALID`, `test to 127\.0\.0\.1:\d+: dial`)
	if strings.Contains(sandbox.output, "\x1b") {
		t.Errorf("the output contains an escape character: %q", sandbox.output)
	}
}

// TestFakeClaude_streams checks a background hire, which streams the reply.
func TestFakeClaude_streams(t *testing.T) {
	t.Parallel()
	sandbox := startSandbox(t, 0)
	_, poets := sandbox.graphql(sandbox.key, `{ agents(filter: {search: "Poet"}) { nodes { id } } }`)
	id := regexp.MustCompile(`id:(\S+?)\]`).FindStringSubmatch(poets)
	if id == nil {
		t.Fatalf("no Poet in %s", poets)
	}
	_, hire := sandbox.graphql(sandbox.key, `mutation { startExecution(input: {agentId: "`+id[1]+`", taskDescription: "A haiku.", budget: 10}) { task { id } } }`)
	task := regexp.MustCompile(`id:(\S+?)\]`).FindStringSubmatch(hire)
	if task == nil {
		t.Fatalf("got hire %s", hire)
	}
	testutil.Eventually(t, "the reply of Poet", func() bool {
		_, done := sandbox.request(http.MethodGet, "/api/tasks/"+task[1], sandbox.key, "")
		return done["status"] == "completed" && strings.HasPrefix(fmt.Sprint(done["result"]), "Packets cross the night,")
	})
}

// TestCommand_rejectsInvalid checks the errors for invalid flags.
func TestCommand_rejectsInvalid(t *testing.T) {
	t.Parallel()
	taken := httptest.NewServer(nil)
	t.Cleanup(taken.Close)
	for want, command := range map[string]dev.Command{
		"is not an address like":      {Addr: "8080", StartingCredits: 100},
		"is not a loopback address":   {Addr: "0.0.0.0:8080", StartingCredits: 100},
		"--pace":                      {Addr: "127.0.0.1:0", StartingCredits: 100, Pace: -1},
		"--starting-credits":          {Addr: "127.0.0.1:0", StartingCredits: 99},
		"another address with --addr": {Addr: taken.Listener.Addr().String(), StartingCredits: 100},
		"example.com is not a loopb":  {Addr: "example.com:80", StartingCredits: 100},
	} {
		var out strings.Builder
		err := command.Validate()
		if err == nil {
			err = command.Run(t.Context(), client.Streams{Out: &out, Err: &out})
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || out.Len() > 0 {
			t.Errorf("%+v: %v, %q; want %q", command, err, out.String(), want)
		}
	}
}
