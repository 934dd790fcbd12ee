// Package examples_test runs the programs of examples/ against the built server, with the
// documented commands.
package examples_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

func TestMain(m *testing.M) { testserver.Main(m) }

const (
	examplesDir = "../../../../examples"
	// maxLines is the maximum length of a source file of an example.
	maxLines = 80
)

// TestExamples_areShort: every example is short and begins with a description.
func TestExamples_areShort(t *testing.T) {
	t.Parallel()
	folders, err := filepath.Glob(examplesDir + "/*/README.md")
	if entries, _ := os.ReadDir(examplesDir); err != nil || len(folders) == 0 || len(folders) != len(entries)-1 {
		t.Fatalf("%d of %d examples have a README.md (%v)", len(folders), len(entries)-1, err)
	}
	for _, readme := range folders {
		files, _ := filepath.Glob(filepath.Join(filepath.Dir(readme), "*.*"))
		for _, file := range files {
			source := slices.Contains([]string{".go", ".mjs", ".py"}, filepath.Ext(file)) && filepath.Base(file) != "generated.go"
			text, err := os.ReadFile(file)
			if lines := bytes.Count(text, []byte("\n")); err != nil || source && lines > maxLines {
				t.Errorf("%s has %d lines, more than %d (%v)", file, lines, maxLines, err)
			}
		}
	}
}

// exampleCommand returns the command that runs an example.
type exampleCommand func(t *testing.T) []string

func goExample(name string) exampleCommand {
	return func(t *testing.T) []string {
		t.Helper()
		binary := filepath.Join(t.TempDir(), name)
		build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "agentmarket.space/server/examples/"+name)
		if text, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, text)
		}
		return []string{binary}
	}
}

func pythonExample(file string) exampleCommand {
	return func(t *testing.T) []string {
		t.Helper()
		return []string{testserver.RequireTool(t, "python3"), "-B", filepath.Join(examplesDir, file)}
	}
}

func nodeExample(file string) exampleCommand {
	return func(t *testing.T) []string {
		t.Helper()
		return []string{testserver.RequireTool(t, "node"), filepath.Join(examplesDir, file)}
	}
}

// npmExample runs a file in node with the packages of the example's lock file.
func npmExample(file string) exampleCommand {
	return func(t *testing.T) []string {
		t.Helper()
		dir := t.TempDir()
		text, err := os.ReadFile(filepath.Join(examplesDir, file))
		if err != nil {
			t.Fatal(err)
		}
		testserver.LinkNodeModules(t, filepath.Join(examplesDir, filepath.Dir(file)), dir)
		script := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(script, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{testserver.RequireTool(t, "node"), script}
	}
}

// runningExample is an example that runs until the test ends.
type runningExample struct{ lines <-chan string }

func startExample(t *testing.T, args []string, env ...string) runningExample {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), t.Output()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	})
	t.Cleanup(func() { // the test's context has killed the process
		reading.Wait()
		_ = cmd.Wait()
	})
	return runningExample{lines}
}

// nextLine returns the next line that the example prints.
func (s runningExample) nextLine(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-s.lines:
		if !ok {
			t.Fatal("the example exited")
		}
		return line
	case <-time.After(testutil.Timeout):
		t.Fatal("the example prints nothing")
		return ""
	}
}

// listenAddress returns the address at which the example says it listens.
func (s runningExample) listenAddress(t *testing.T) string {
	t.Helper()
	line := s.nextLine(t)
	found := regexp.MustCompile(`^listening at (https?://127\.0\.0\.1:\d+)/$`).FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("got %q", line)
	}
	return found[1]
}

// mustPostTask posts a task for 25 credits that requires the capability "shouting".
func mustPostTask(t *testing.T, server *testserver.Server, key, description string) (id string) {
	t.Helper()
	task, err := server.PostTaskInput(key, map[string]any{"title": "Shout it", "description": description, "requiredCapabilities": []string{"shouting"}})
	testutil.Must(t, err)
	return task.ID
}
