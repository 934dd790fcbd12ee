// Package testserver runs the built server for tests that know it from outside
// only: its address, its files, its exit.
package testserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "agentmarket.space/server/internal/cli" // so that a kept test result is of the program as it is now
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// waitTimeout is how long anything of a server may take before a test gives up.
const waitTimeout = 30 * time.Second

// maxIdleConns is how many connections are kept for the next requests: more than
// any test has clients at work.
const maxIdleConns = 400

// Main builds the server, runs the tests of a package and exits. TestMain calls
// it. A program named by AGENTMARKET_TEST_BINARY is not built again.
func Main(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	if os.Getenv(trusttest.BinaryEnv) != "" {
		return m.Run(), nil
	}
	for root := "."; len(root) < 100; root = filepath.Join(root, "..") {
		if _, err := os.Stat(filepath.Join(root, "server.go")); err == nil { // looked at for the same reason as cli is imported
			break
		}
	}
	dir, err := os.MkdirTemp("", "agentmarket-program-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	binary := filepath.Join(dir, "agentmarket")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", binary, "agentmarket.space/server")
	if text, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the server: %w: %s", err, text)
	}
	if err := os.Setenv(trusttest.BinaryEnv, binary); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// BinaryPath is where the built program is.
func BinaryPath() string { return os.Getenv(trusttest.BinaryEnv) }

// Server is a running server with a folder of its own.
type Server struct {
	// URL is its address, without a slash at the end. It stays over restarts.
	URL string
	// Dir is where its database, agentmarket.db, and its key are.
	Dir string

	tb      testing.TB
	client  *http.Client
	env     []string
	command []string // to run, without the address
	cmd     *exec.Cmd
	log     *output   // of the running process
	logs    []*output // of all so far
	secrets *Secrets
	exited  chan struct{} // closed when the process is gone
}

// Start runs a server with rate limits off and waits until it is ready. Env are
// further settings, like "AGENTMARKET_LEASE=2m". When the test ends it is killed, if
// it still runs, and the test fails when its log or its files show a key or a secret.
func Start(tb testing.TB, env ...string) *Server {
	tb.Helper()
	return StartCommand(tb, []string{BinaryPath()}, env...)
}

// StartCommand is Start with another command: a server that was built otherwise, or this
// one under a tracer that leaves it its process id.
func StartCommand(tb testing.TB, command []string, env ...string) *Server {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: maxIdleConns}
	s := &Server{
		Dir: tb.TempDir(), tb: tb, command: command, env: append([]string{"AGENTMARKET_RATE_LIMITS=off"}, env...),
		client: &http.Client{Transport: transport}, secrets: &Secrets{},
	}
	s.start("--addr=127.0.0.1:0")
	tb.Cleanup(func() {
		s.Kill()
		transport.CloseIdleConnections()
		for _, leak := range s.FindLeaks() {
			tb.Error(leak)
		}
	})
	return s
}

// Restart runs the server again, at the same address with the same files. It
// must have ended. Env takes precedence over earlier settings.
func (s *Server) Restart(env ...string) {
	s.tb.Helper()
	s.env = append(s.env, env...)
	s.start("--addr=" + strings.TrimPrefix(s.URL, "http://"))
}

func (s *Server) start(addr string) {
	s.tb.Helper()
	ctx := context.WithoutCancel(s.tb.Context()) // it outlives the test for its clean-up
	args := append(slices.Clone(s.command), addr)
	s.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	s.cmd.Dir = s.Dir
	s.cmd.Env = append(os.Environ(), s.env...)
	s.log = &output{address: make(chan string, 1)}
	s.logs = append(s.logs, s.log)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	ended := make(chan struct{})
	s.exited = ended
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // ProcessState tells
		close(ended)
	}(s.cmd)
	select {
	case url := <-s.log.address:
		if s.URL == "" { // later it is the same, and others may be reading it
			s.URL = url
		}
	case <-ended:
		s.tb.Fatalf("the server ended at once:\n%s", s.Log())
	case <-time.After(waitTimeout):
		s.tb.Fatalf("the server does not say where it is:\n%s", s.Log())
	}
	s.waitReady()
}

// waitReady waits for /readyz. The listener is there before the banner, so that
// the first request waits in its queue rather than fails.
func (s *Server) waitReady() {
	s.tb.Helper()
	looks := time.NewTicker(10 * time.Millisecond)
	defer looks.Stop()
	deadline := time.After(waitTimeout)
	for {
		if status, _ := s.Do(http.MethodGet, "/readyz", "", ""); status == http.StatusOK {
			return
		}
		select {
		case <-looks.C:
		case <-s.exited:
			s.tb.Fatalf("the server ended:\n%s", s.Log())
		case <-deadline:
			s.tb.Fatalf("the server does not get ready:\n%s", s.Log())
		}
	}
}

// Kill ends the server as a power cut would, with SIGKILL, and waits until it
// is gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may be gone
	<-s.exited
}

// Terminate asks the server to stop with SIGTERM. It does not wait; see Exited.
func (s *Server) Terminate() {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.tb.Fatal(err)
	}
}

// Exited is closed once the process is gone.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Stop asks the server to stop, waits until it has, and returns its exit code.
func (s *Server) Stop() int {
	s.tb.Helper()
	s.Terminate()
	select {
	case <-s.exited:
	case <-time.After(waitTimeout):
		s.tb.Fatalf("the server does not stop:\n%s", s.Log())
	}
	return s.ExitCode()
}

// ExitCode is what the server ended with, once it has.
func (s *Server) ExitCode() int { return s.cmd.ProcessState.ExitCode() }

// Log is what the server has written so far.
func (s *Server) Log() string { return s.log.String() }

// Verify runs "agentmarket verify" on the server's database and fails the test
// when the ledger does not hold.
func (s *Server) Verify() {
	s.tb.Helper()
	verify := exec.CommandContext(s.tb.Context(), BinaryPath(), "verify")
	verify.Dir = s.Dir
	verify.Env = append(os.Environ(), s.env...)
	if text, err := verify.CombinedOutput(); err != nil {
		s.tb.Errorf("verify: %v\n%s", err, text)
	}
}

// Run runs a command of the program in a folder and returns what it wrote and its
// exit code.
func Run(tb testing.TB, dir string, args ...string) (text string, code int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 4*waitTimeout) // a server that starts where it must not would go on
	defer cancel()
	cmd := exec.CommandContext(ctx, BinaryPath(), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		tb.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Do sends a request with an API key, if one is given, and returns the status
// and the whole body. The status is 0 when no answer came, and the text why.
// The body, if not empty, is sent as JSON. Headers are pairs of name and value. An
// answer that shows a key or a secret but where it gives one out fails the test.
func (s *Server) Do(method, path, key, body string, headers ...string) (status int, text string) {
	s.tb.Helper()
	status, text = s.send(method, path, key, body, headers...)
	for _, secret := range s.secrets.ScanResponse(text) {
		s.tb.Errorf("%s %s: the answer shows %s: %s", method, path, secret, text)
	}
	return status, text
}

func (s *Server) send(method, path, key, body string, headers ...string) (status int, text string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.tb.Context()), waitTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.URL+path, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		request.Header.Set("X-API-Key", key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := s.client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close() //nolint:errcheck // read to its end below
	all, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(all)
}

// CloseIdleConnections closes the connections that are kept for the next requests.
func (s *Server) CloseIdleConnections() { s.client.CloseIdleConnections() }

// Query sends a GraphQL operation and unmarshals its data into data. An answer
// with errors, or none, is an error.
func (s *Server) Query(key, document string, variables map[string]any, data any, headers ...string) error {
	body, err := json.Marshal(map[string]any{"query": document, "variables": variables})
	if err != nil {
		return err
	}
	status, text := s.Do(http.MethodPost, "/graphql", key, string(body), headers...)
	var answer struct {
		Data   json.RawMessage
		Errors json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Errors != nil {
		return fmt.Errorf("status %d: %s", status, text)
	}
	return json.Unmarshal(answer.Data, data)
}

// Agent is a registered agent.
type Agent struct{ ID, Key, WebhookSecret string }

// Register registers an agent. More are further fields of the input, and may be
// nil. Headers are pairs of name and value.
func (s *Server) Register(name string, more map[string]any, headers ...string) Agent {
	s.tb.Helper()
	input := map[string]any{"name": name}
	maps.Copy(input, more)
	var data struct {
		RegisterAgent struct {
			Agent         struct{ ID string }
			APIKey        string `json:"apiKey"`
			WebhookSecret string
		}
	}
	const document = `mutation($input: RegisterAgentInput!) { registerAgent(input: $input) { agent { id } apiKey webhookSecret } }`
	if err := s.Query("", document, map[string]any{"input": input}, &data, headers...); err != nil {
		s.tb.Fatal(err)
	}
	out := data.RegisterAgent
	return Agent{ID: out.Agent.ID, Key: out.APIKey, WebhookSecret: out.WebhookSecret}
}

// output keeps what a server writes, and finds its address in it.
type output struct {
	mu         sync.Mutex
	text       bytes.Buffer
	hasAddress bool
	address    chan string
}

// Write keeps p.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if !o.hasAddress {
		if place := regexp.MustCompile(`"graphql":"(http://[^/\s]+)/graphql `).FindSubmatch(o.text.Bytes()); place != nil {
			o.hasAddress = true
			o.address <- string(place[1])
		}
	}
	return len(p), nil
}

// String returns what was written.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
