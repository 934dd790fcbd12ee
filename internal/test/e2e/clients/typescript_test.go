package clients_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// copyClient copies clients/typescript with its packages and the schema, in the layout of
// the repository.
func copyClient(t *testing.T) (dir string) {
	t.Helper()
	const root = "../../../.."
	from, base := root+"/clients/typescript", t.TempDir()
	dir = filepath.Join(base, "clients", "typescript")
	err := errors.Join(os.CopyFS(filepath.Join(dir, "src"), os.DirFS(from+"/src")), os.CopyFS(filepath.Join(dir, "test"), os.DirFS(from+"/test")))
	for _, name := range []string{"package.json", "tsconfig.json", "../../schema.graphqls"} {
		text, readErr := os.ReadFile(filepath.Join(from, name))
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	testserver.LinkNodeModules(t, from, dir)
	return dir
}

// runTool runs a program of the client's packages and returns its output.
func runTool(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "node_modules", ".bin", args[0]), args[1:]...)
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// TestTypescript_types: the generated types match the schema. Only a misspelled field fails
// to compile.
func TestTypescript_types(t *testing.T) {
	t.Parallel()
	dir := copyClient(t)
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	committed := read("src/schema.d.ts")
	if text, err := runTool(t, dir, "gql.tada", "generate", "output"); err != nil || read("src/schema.d.ts") != committed {
		t.Errorf("src/schema.d.ts is stale: run npm run generate in clients/typescript (%v)\n%s", err, text)
	}
	live := read("test/live.ts")
	misspelled := strings.Replace(live, "task { id title budget }", "task { id title bugdet }", 1)
	if err := os.WriteFile(filepath.Join(dir, "test", "live.ts"), []byte(misspelled), 0o600); err != nil || misspelled == live {
		t.Fatal("no field to misspell", err)
	}
	if text, err := runTool(t, dir, "gql.tada", "check"); err == nil || strings.Count(text, "Cannot query field") != 1 || !strings.Contains(text, "bugdet") {
		t.Errorf("a misspelled field compiles, or a valid one does not: %v\n%s", err, text)
	}
}

// TestTypescript: the client and the example of its README.md compile, and earn credits
// with the built server: nine tenths of 25, rounded down. The client receives each task
// once and in order, although its connection is closed.
func TestTypescript(t *testing.T) {
	t.Parallel()
	dir := copyClient(t)
	example := strings.ReplaceAll(testutil.CodeBlock(t, "../../../../clients/typescript/README.md", "", "ts"), `"agentmarket-client"`, `"../src/index.js"`)
	if err := os.WriteFile(filepath.Join(dir, "test", "readme.ts"), []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := runTool(t, dir, "tsc", "--outDir", "out"); err != nil {
		t.Fatalf("it does not compile: %v\n%s", err, text)
	}
	server := testserver.Start(t)
	cmd := exec.CommandContext(t.Context(), testserver.RequireTool(t, "node"), "out/test/live.js")
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "AGENTMARKET_URL="+server.URL), t.Output()
	text, err := cmd.Output()
	var done struct {
		Task, Title string
		Balance     int
	}
	if err != nil || json.Unmarshal(text, &done) != nil || done.Title != "Shout it" || done.Balance != 122 {
		t.Errorf("it prints %s (%v)", text, err)
	}
	if _, text := server.Do(http.MethodGet, "/api/tasks/"+done.Task, "", ""); !strings.Contains(text, `"status":"completed"`) {
		t.Errorf("the task is %s", text)
	}
	checkReconnect(t, server, dir)
	server.Verify()
}

// checkReconnect subscribes with the compiled client while its connection is closed.
func checkReconnect(t *testing.T, server *testserver.Server, dir string) {
	t.Helper()
	proxy := startProxy(t, server)
	agent := server.Register("Listener", map[string]any{"capabilities": []string{"listening"}})
	poster := server.Register("Poster", nil)
	cmd := exec.CommandContext(t.Context(), testserver.RequireTool(t, "node"), "out/test/follow.js")
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "AGENTMARKET_URL="+proxy.url, "AGENTMARKET_API_KEY="+agent.Key), t.Output()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the test's context has killed the process
	lines := bufio.NewScanner(out)
	for n := range 20 {
		title := fmt.Sprintf("Task %d", n)
		if err := postTask(server, poster.Key, title, 2, "listening"); err != nil {
			t.Fatal(err)
		}
		if n%7 == 3 {
			proxy.closeConnections()
		}
	}
	for n := range 20 {
		if want := fmt.Sprintf("Task %d", n); !lines.Scan() || lines.Text() != want {
			t.Fatalf("received %q, want %q (%v)", lines.Text(), want, lines.Err())
		}
	}
}
