// Package clients_test runs popular GraphQL clients against the built server.
package clients_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// clientNames are the clients of clients.mjs.
func clientNames() []string {
	return []string{"graphql-ws", "subscriptions-transport-ws", "graphql-sse"}
}

// nodeProcess is a running node script.
type nodeProcess struct {
	lines <-chan []byte // its output; closed when it exits
}

// runScript runs a node script of testdata with the client packages, until it or the test
// ends.
func runScript(t *testing.T, name string, args ...string) nodeProcess {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return runModule(t, string(text), nil, args...)
}

// runModule runs the text of a node module in the same way, with additional environment
// variables.
func runModule(t *testing.T, module string, env []string, args ...string) nodeProcess {
	t.Helper()
	dir := t.TempDir()
	testserver.LinkNodeModules(t, "testdata", dir)
	file := filepath.Join(dir, "script.mjs")
	out, in, err := os.Pipe()
	err = errors.Join(err, os.CopyFS(dir, os.DirFS("testdata")), os.WriteFile(file, []byte(module), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), testserver.RequireTool(t, "node"), append([]string{file}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = in, os.Stderr
	if err := errors.Join(cmd.Start(), in.Close()); err != nil {
		t.Fatal(err)
	}
	lines := make(chan []byte)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			select {
			case lines <- []byte(scanner.Text()):
			case <-t.Context().Done():
				return
			}
		}
	})
	t.Cleanup(func() { // the test's context has killed the process
		_ = cmd.Wait()
		reading.Wait()
		_ = out.Close()
	})
	return nodeProcess{lines}
}

// nextLine returns the next line that a script prints.
func nextLine[T any](t *testing.T, p nodeProcess) (line T) {
	t.Helper()
	select {
	case text, ok := <-p.lines:
		if !ok {
			t.Fatal("the client exited")
		}
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	case <-time.After(testutil.Timeout):
		t.Fatal("the client prints nothing")
	}
	return line
}

// postTask posts a task. Posting the same title again is a retry.
func postTask(server *testserver.Server, key, title string, budget int, capabilities ...string) error {
	_, err := server.PostTaskInput(key, map[string]any{"title": title, "description": "Listen.", "budget": budget, "requiredCapabilities": capabilities}, "Idempotency-Key", title)
	return err
}
