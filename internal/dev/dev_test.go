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

// testSandbox is a market for an afternoon.
type testSandbox struct {
	t                                              *testing.T
	lines                                          chan string
	url, dir, key, secret, operator, https, output string
	stop                                           func() error
}

// startSandbox runs a market until its end, or the test's, and reads its welcome.
func startSandbox(t *testing.T, pace time.Duration) *testSandbox {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out, in := io.Pipe()
	r := &testSandbox{t: t, lines: make(chan string, 10_000)}
	ended := make(chan error, 1)
	go func() {
		command := &dev.Command{Addr: "127.0.0.1:0", StartingCredits: 10_000, Pace: pace}
		err := command.Run(ctx, client.Streams{Out: in, Err: t.Output()})
		_ = in.Close()
		ended <- err
	}()
	go func() {
		defer close(r.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			r.lines <- scanner.Text()
		}
	}()
	var once error
	asked := false
	r.stop = func() error {
		if !asked {
			asked = true
			cancel()
			once = <-ended
		}
		return once
	}
	t.Cleanup(func() { _ = r.stop() })
	r.waitForOutput(`What happens meanwhile`)
	for pattern, value := range map[string]*string{
		`Market +(http://\S+)`: &r.url, `Database +(\S+),`: &r.dir, `Operator +(\S+)`: &r.operator, `Webhooks +(https://[^/]+)/`: &r.https,
		`API_KEY=(\S+)`: &r.key, `WEBHOOK_SECRET=(\S+)`: &r.secret,
	} {
		found := regexp.MustCompile(pattern).FindStringSubmatch(r.output)
		if found == nil {
			t.Fatalf("it does not say %s:\n%s", pattern, r.output)
		}
		*value = found[1]
	}
	return r
}

// waitForOutput reads what is printed until all the patterns were there.
func (r *testSandbox) waitForOutput(patterns ...string) {
	r.t.Helper()
	tooLong := time.After(testutil.Timeout)
	for len(patterns) > 0 {
		if regexp.MustCompile(patterns[0]).MatchString(r.output) {
			patterns = patterns[1:]
			continue
		}
		select {
		case line, more := <-r.lines:
			if !more {
				r.t.Fatalf("it has ended without %s:\n%s", patterns[0], r.output)
			}
			r.output += line + "\n"
		case <-tooLong:
			r.t.Fatalf("it does not say %s:\n%s", patterns[0], r.output)
		}
	}
}

// request sends a request and decodes the data of the answer.
func (r *testSandbox) request(method, path, key, body string) (status int, data map[string]any) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	var answer struct{ Data map[string]any }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, answer.Data
}

// graphql asks for something of GraphQL, and returns the answer as it is.
func (r *testSandbox) graphql(key, document string) (status int, text string) {
	r.t.Helper()
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		r.t.Fatal(err)
	}
	status, data := r.request(http.MethodPost, "/graphql", key, string(body))
	return status, fmt.Sprint(data)
}

// eventually waits until something is so.
func (r *testSandbox) eventually(what string, so func() bool) {
	r.t.Helper()
	looks := time.NewTicker(20 * time.Millisecond)
	defer looks.Stop()
	for tooLong := time.After(testutil.Timeout); !so(); {
		select {
		case <-looks.C:
		case <-tooLong:
			r.t.Fatalf("%s: it is not so", what)
		}
	}
}

// verifyLedger recomputes the ledger, as agentmarket verify does.
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
		r.t.Errorf("the ledger does not hold: %v", err)
	}
}

// TestSandbox: its agents post, take, complete and rate tasks and hire both kinds of
// agents, the reader's agent is told of tasks by signed webhooks, and at the end
// nothing is left, no file and no goroutine.
func TestSandbox(t *testing.T) {
	count := goroutines.Counter(t)
	before := count()
	market := startSandbox(t, 20*time.Millisecond)
	market.waitForOutput(` posts "`, ` takes "`, ` completes "`, ` rates ".*" with [345]`, ` hires Echo: "A haiku`, ` hires Poet: "Packets`,
		`webhook task.posted to you: signature verified\n(    .*\n)*    X-Agentmarket-Delivery: `)
	if status, wallet := market.request(http.MethodGet, "/api/wallet", market.key, ""); status != http.StatusOK || wallet["balance"] != 10_000. {
		t.Errorf("the reader has %v (%d)", wallet, status)
	}
	market.verifyLedger()
	if err := market.stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(market.output, "could not") {
		t.Errorf("its agents failed:\n%s", market.output)
	}
	if _, err := os.Stat(market.dir); !os.IsNotExist(err) {
		t.Errorf("%s is left (%v)", market.dir, err)
	}
	http.DefaultClient.CloseIdleConnections()
	market.eventually("every goroutine has ended", func() bool { return count() <= before })
}

// TestClock_advance: by the clock that is moved on a lease ends, an offer ends and is refunded,
// and a webhook that failed twice is tried again, signed by the true time. No key but
// the operator's moves it, and nothing moves it back.
func TestClock_advance(t *testing.T) {
	t.Parallel()
	market := startSandbox(t, 0)
	tries := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		attempt := r.Header.Get("X-AgentMarket-Attempt")
		if attempt != "3" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		tries <- attempt + " " + r.Header.Get("X-AgentMarket-Timestamp")
	}))
	t.Cleanup(receiver.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(receiver.URL, "http://"), ":")
	_, worker := market.request(http.MethodPost, "/api/agents/register", "", `{"name":"Worker","capabilities":["x"],"webhook_url":"`+market.https+`/to/`+port+`/hook"}`)
	key := fmt.Sprint(worker["api_key"])
	_, task := market.request(http.MethodPost, "/api/tasks", market.key, `{"title":"T","description":"D","budget":25,"required_capabilities":["x"]}`)
	id := "/api/tasks/" + fmt.Sprint(task["id"])
	if status, _ := market.request(http.MethodPost, id+"/accept", key, ""); status != http.StatusOK {
		t.Fatalf("accepting is answered %d", status)
	}
	advance := func(by string, want int) {
		t.Helper()
		if status, _ := market.request(http.MethodPost, "/operator/clock", market.operator, `{"advance":"`+by+`"}`); status != want {
			t.Errorf("moving the clock by %q is answered %d, want %d", by, status, want)
		}
	}
	tried := func(want string) {
		t.Helper()
		select {
		case got := <-tries:
			number, timestamp, _ := strings.Cut(got, " ")
			var at int64
			if _, err := fmt.Sscan(timestamp, &at); err != nil || number != want || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
				t.Errorf("try %s is signed at %s", got, timestamp)
			}
		case <-time.After(testutil.Timeout):
			t.Fatalf("try %s does not come", want)
		}
	}
	tried("1")
	tried("2")
	market.eventually("the second try is written down", func() bool {
		_, viewer := market.graphql(key, `{ viewer { webhook { deliveries { nodes { attempts { number } } } } } }`)
		return strings.Count(viewer, "number") == 2
	})
	advance("25h", http.StatusOK)
	tried("3")
	if _, task := market.request(http.MethodGet, id, "", ""); task["status"] != "open" {
		t.Errorf("a day later the task is %v", task["status"])
	}
	advance("168h", http.StatusOK)
	market.eventually("the budget is given back", func() bool {
		_, wallet := market.request(http.MethodGet, "/api/wallet", market.key, "")
		return wallet["balance"] == 10_000.
	})
	for _, by := range []string{"-1h", "0s", "", "soon", "1000000h"} {
		advance(by, http.StatusBadRequest)
	}
	if status, _ := market.request(http.MethodPost, "/operator/clock", market.key, `{"advance":"1h"}`); status != http.StatusUnauthorized {
		t.Errorf("an agent moves the clock: %d", status)
	}
	market.verifyLedger()
}

// TestStubServices: what is sent to its addresses is printed in lines that nobody else can
// begin, and taken for the market's when both signatures are right. What goes to a
// port where nobody listens is not delivered.
func TestStubServices(t *testing.T) {
	t.Parallel()
	market := startSandbox(t, 0)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // it is not about who it is
	t.Cleanup(transport.CloseIdleConnections)
	const secret, body = "whsec_+/+/", "{\"a\":\"\x1b[31m\"}"
	send := func(path, event string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, market.https+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now().Unix()
		signature, err := outbound.SignStandard(secret, "1", now, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"X-AgentMarket-Event": event, outbound.SignatureHeader: outbound.Sign(secret, []byte(body)),
			"webhook-id": "1", "webhook-timestamp": strconv.FormatInt(now, 10), "webhook-signature": signature,
		} {
			request.Header.Set(name, value)
		}
		answer, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	for path, want := range map[string]int{
		"/hooks/new": http.StatusNoContent, "/hooks/mine?secret=" + secret: http.StatusNoContent, "/hooks/new?secret=whsec_AAAA": http.StatusUnauthorized, "/hooks/new?secret=%01": http.StatusUnauthorized,
		"/hooks/you": http.StatusUnauthorized, "/echo": http.StatusUnauthorized, "/to/0/x": http.StatusNotFound, "/to/99999/x": http.StatusNotFound,
		"/to/here/x": http.StatusNotFound, "/to/" + closed.URL[strings.LastIndex(closed.URL, ":")+1:] + "/x": http.StatusBadGateway,
	} {
		if got := send(path, "test"); got != want {
			t.Errorf("%s is answered %d, want %d", path, got, want)
		}
	}
	market.waitForOutput(`webhook test to new: signature not checked`, `webhook test to mine: signature verified`, `webhook test to you: signature NOT right`, `test to 127\.0\.0\.1:\d+: dial`)
	if strings.Contains(market.output, "\x1b") {
		t.Errorf("what was sent moves the cursor: %q", market.output)
	}
}

// TestFakeClaude_streams: a hire of the model that nobody waits for is written word by word.
func TestFakeClaude_streams(t *testing.T) {
	t.Parallel()
	market := startSandbox(t, 0)
	_, poets := market.graphql(market.key, `{ agents(filter: {search: "Poet"}) { nodes { id } } }`)
	id := regexp.MustCompile(`id:(\S+?)\]`).FindStringSubmatch(poets)
	if id == nil {
		t.Fatalf("there is no poet in %s", poets)
	}
	_, hire := market.graphql(market.key, `mutation { startExecution(input: {agentId: "`+id[1]+`", taskDescription: "A haiku.", budget: 10}) { task { id } } }`)
	task := regexp.MustCompile(`id:(\S+?)\]`).FindStringSubmatch(hire)
	if task == nil {
		t.Fatalf("the hire is answered %s", hire)
	}
	market.eventually("the poet has answered", func() bool {
		_, done := market.request(http.MethodGet, "/api/tasks/"+task[1], market.key, "")
		return done["status"] == "completed" && strings.HasPrefix(fmt.Sprint(done["result"]), "Packets cross the night,")
	})
}

// TestCommand_rejectsInvalid: what cannot be is told in a line.
func TestCommand_rejectsInvalid(t *testing.T) {
	t.Parallel()
	taken := httptest.NewServer(nil)
	t.Cleanup(taken.Close)
	for want, command := range map[string]dev.Command{
		"is not an address like":     {Addr: "8080", StartingCredits: 100},
		"is not of this machine":     {Addr: "0.0.0.0:8080", StartingCredits: 100},
		"--pace":                     {Addr: "127.0.0.1:0", StartingCredits: 100, Pace: -1},
		"--starting-credits":         {Addr: "127.0.0.1:0", StartingCredits: 99},
		"--addr takes another":       {Addr: taken.Listener.Addr().String(), StartingCredits: 100},
		"example.com is not of this": {Addr: "example.com:80", StartingCredits: 100},
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
