package clients_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/e2e/program"
)

// client is clients/typescript with its packages, in a copy that may be changed, beside
// the schema as in the repository.
func client(t *testing.T) (dir string) {
	t.Helper()
	const root = "../../.."
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
	program.Packages(t, from, dir)
	return dir
}

// tool runs a program of the client's packages and returns what it wrote.
func tool(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "node_modules", ".bin", args[0]), args[1:]...)
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// TestTypescript_types: the types are those of the schema, and of all that is asked for
// a misspelled field alone does not fit them.
func TestTypescript_types(t *testing.T) {
	t.Parallel()
	dir := client(t)
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	committed := read("src/schema.d.ts")
	if text, err := tool(t, dir, "gql.tada", "generate", "output"); err != nil || read("src/schema.d.ts") != committed {
		t.Errorf("src/schema.d.ts is stale: run npm run generate in clients/typescript (%v)\n%s", err, text)
	}
	live := read("test/live.ts")
	misspelled := strings.Replace(live, "task { id title budget }", "task { id title bugdet }", 1)
	if err := os.WriteFile(filepath.Join(dir, "test", "live.ts"), []byte(misspelled), 0o600); err != nil || misspelled == live {
		t.Fatal("there is nothing to misspell", err)
	}
	if text, err := tool(t, dir, "gql.tada", "check"); err == nil || strings.Count(text, "Cannot query field") != 1 || !strings.Contains(text, "bugdet") {
		t.Errorf("a misspelled field passes, or another does not fit: %v\n%s", err, text)
	}
}

// TestTypescript: the client is compiled, and earns credits with the built server:
// nine tenths of 25, rounded down.
func TestTypescript(t *testing.T) {
	t.Parallel()
	dir := client(t)
	if text, err := tool(t, dir, "tsc", "--outDir", "out"); err != nil {
		t.Fatalf("it does not compile: %v\n%s", err, text)
	}
	server := program.Start(t)
	cmd := exec.CommandContext(t.Context(), program.Tool(t, "node"), "out/test/live.js")
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "AGENTMARKET_URL="+server.URL), t.Output()
	text, err := cmd.Output()
	var done struct {
		Task, Title string
		Balance     int
	}
	if err != nil || json.Unmarshal(text, &done) != nil || done.Title != "Shout it" || done.Balance != 122 {
		t.Errorf("it says %s (%v)", text, err)
	}
	if _, text := server.Do(http.MethodGet, "/api/tasks/"+done.Task, "", ""); !strings.Contains(text, `"status":"completed"`) {
		t.Errorf("the task is %s", text)
	}
	server.Verify()
}
