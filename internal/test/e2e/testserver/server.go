// Package testserver runs the built server for end-to-end tests, which use its address, its
// files and its exit code.
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

	_ "agentmarket.space/server/internal/cli" // so that go test reruns the tests when the program changes
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// waitTimeout bounds every wait for a server.
const waitTimeout = 30 * time.Second

// maxIdleConns is the number of idle connections to a server, more than any test has
// clients.
const maxIdleConns = 400

// Main builds the server, runs the tests of a package and exits. Call it from TestMain. If
// AGENTMARKET_TEST_BINARY names a server, Main uses that.
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
		if _, err := os.Stat(filepath.Join(root, "server.go")); err == nil { // so that go test reruns the tests when server.go changes
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

// BinaryPath returns the path of the server binary.
func BinaryPath() string { return os.Getenv(trusttest.BinaryEnv) }

// Server is a running server with its own folder.
type Server struct {
	// URL is the address it listens on, without a trailing slash. It does not change on
	// restart, and does not depend on AGENTMARKET_PUBLIC_URL.
	URL string
	// Dir is the folder of its database, agentmarket.db, and its key.
	Dir string

	tb      testing.TB
	client  *http.Client
	env     []string
	command []string // without the address
	cmd     *exec.Cmd
	log     *output   // of the current process
	logs    []*output // of all processes
	secrets *Secrets
	exited  chan struct{} // closed when the process has exited
}

// Start runs a server with rate limits off and waits until it is ready. env has further
// settings, such as "AGENTMARKET_LEASE=2m". When the test ends, the server is killed, and
// the test fails if its log or its files contain a key or a secret.
func Start(tb testing.TB, env ...string) *Server {
	tb.Helper()
	return StartCommand(tb, []string{BinaryPath()}, env...)
}

// StartCommand is Start with another command, such as another build of the server or a
// tracer that runs it under the same process ID.
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

// At returns the same server with another URL, such as that of a proxy in front of it.
func (s *Server) At(url string) *Server {
	at := *s
	at.URL = url
	return &at
}

// Restart starts the server again, at the same address with the same files. It must have
// exited. env overrides earlier settings.
func (s *Server) Restart(env ...string) {
	s.tb.Helper()
	s.env = append(s.env, env...)
	s.start("--addr=" + strings.TrimPrefix(s.URL, "http://"))
}

func (s *Server) start(addr string) {
	s.tb.Helper()
	ctx := context.WithoutCancel(s.tb.Context()) // t.Cleanup stops the server
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
	exited := make(chan struct{})
	s.exited = exited
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // ProcessState has the result
		close(exited)
	}(s.cmd)
	select {
	case url := <-s.log.address:
		if s.URL == "" { // a restart keeps it, and other goroutines may read it
			s.URL = url
		}
	case <-exited:
		s.tb.Fatalf("the server exited at once:\n%s", s.Log())
	case <-time.After(waitTimeout):
		s.tb.Fatalf("the server does not log its address:\n%s", s.Log())
	}
	s.waitReady()
}

// waitReady polls /readyz. The server listens before it logs its address, so the first
// request waits instead of failing.
func (s *Server) waitReady() {
	s.tb.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(waitTimeout)
	for {
		if status, _ := s.Do(http.MethodGet, "/readyz", "", ""); status == http.StatusOK {
			return
		}
		select {
		case <-ticker.C:
		case <-s.exited:
			s.tb.Fatalf("the server exited:\n%s", s.Log())
		case <-deadline:
			s.tb.Fatalf("the server is not ready:\n%s", s.Log())
		}
	}
}

// Kill sends SIGKILL to the server and waits until it has exited.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have exited
	<-s.exited
}

// Terminate sends SIGTERM to the server. It does not wait; see Exited.
func (s *Server) Terminate() {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.tb.Fatal(err)
	}
}

// Exited returns a channel that is closed when the process has exited.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Stop terminates the server, waits until it has exited and returns its exit code.
func (s *Server) Stop() int {
	s.tb.Helper()
	s.Terminate()
	select {
	case <-s.exited:
	case <-time.After(waitTimeout):
		s.tb.Fatalf("the server does not exit:\n%s", s.Log())
	}
	return s.ExitCode()
}

// ExitCode returns the exit code of a server that has exited.
func (s *Server) ExitCode() int { return s.cmd.ProcessState.ExitCode() }

// Log returns the output of the current process.
func (s *Server) Log() string { return s.log.String() }

// Verify runs "agentmarket verify" on the server's database and fails the test if the
// ledger has violations.
func (s *Server) Verify() {
	s.tb.Helper()
	verify := exec.CommandContext(s.tb.Context(), BinaryPath(), "verify")
	verify.Dir = s.Dir
	verify.Env = append(os.Environ(), s.env...)
	if text, err := verify.CombinedOutput(); err != nil {
		s.tb.Errorf("verify: %v\n%s", err, text)
	}
}

// Run runs a command of the program in a folder and returns its output and its exit code.
func Run(tb testing.TB, dir string, args ...string) (text string, code int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 4*waitTimeout) // in case it starts a server
	defer cancel()
	cmd := exec.CommandContext(ctx, BinaryPath(), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		tb.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Do sends a request and returns the status and the body. If there is no response, the
// status is 0 and the text is the error. key is the API key and may be empty. A body is
// sent as JSON. Headers are pairs of name and value. The test fails if the response
// contains a key or a secret outside the fields that issue one.
func (s *Server) Do(method, path, key, body string, headers ...string) (status int, text string) {
	s.tb.Helper()
	status, text = s.send(method, path, key, body, headers...)
	for _, secret := range s.secrets.ScanResponse(text) {
		s.tb.Errorf("%s %s: the response contains %s: %s", method, path, secret, text)
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
	defer response.Body.Close() //nolint:errcheck // it is read to the end
	all, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(all)
}

// CloseIdleConnections closes the idle connections to the server.
func (s *Server) CloseIdleConnections() { s.client.CloseIdleConnections() }

// Query sends a GraphQL operation and unmarshals its data into data. A response with errors
// is an error.
func (s *Server) Query(key, document string, variables map[string]any, data any, headers ...string) error {
	body, err := json.Marshal(map[string]any{"query": document, "variables": variables})
	if err != nil {
		return err
	}
	status, text := s.Do(http.MethodPost, "/graphql", key, string(body), headers...)
	var result struct {
		Data   json.RawMessage
		Errors json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &result); err != nil || result.Errors != nil {
		return fmt.Errorf("status %d: %s", status, text)
	}
	return json.Unmarshal(result.Data, data)
}

// Agent is a registered agent.
type Agent struct{ ID, Key, WebhookSecret string }

// Register registers an agent. more has further fields of the input and may be nil. Headers
// are pairs of name and value.
func (s *Server) Register(name string, fields map[string]any, headers ...string) Agent {
	s.tb.Helper()
	input := map[string]any{"name": name}
	maps.Copy(input, fields)
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

// output buffers what a server writes and finds its address in it.
type output struct {
	mu         sync.Mutex
	text       bytes.Buffer
	hasAddress bool
	address    chan string
}

// Write appends p.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if !o.hasAddress {
		if place := regexp.MustCompile(`"listening":"([^"]+)"`).FindSubmatch(o.text.Bytes()); place != nil {
			o.hasAddress = true
			o.address <- "http://" + string(place[1])
		}
	}
	return len(p), nil
}

// String returns everything written so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
