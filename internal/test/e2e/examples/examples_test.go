// Package examples_test runs the programs of examples/ against the built server, as
// their readers do.
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

	"agentmarket.space/server/internal/test/e2e/program"
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	folder = "../../../../examples"
	// patience is how long anything may take before a test gives up.
	patience = 30 * time.Second
	// mostLines is how long a source file of an example is, so that it is read.
	mostLines = 80
)

// TestShort: an example is short, and its reader is told what it is.
func TestShort(t *testing.T) {
	t.Parallel()
	folders, err := filepath.Glob(folder + "/*/README.md")
	if entries, _ := os.ReadDir(folder); err != nil || len(folders) == 0 || len(folders) != len(entries)-1 {
		t.Fatalf("%d of %d examples have a README.md (%v)", len(folders), len(entries)-1, err)
	}
	for _, readme := range folders {
		files, _ := filepath.Glob(filepath.Join(filepath.Dir(readme), "*.*"))
		for _, file := range files {
			source := slices.Contains([]string{".go", ".mjs", ".py"}, filepath.Ext(file)) && filepath.Base(file) != "generated.go"
			text, err := os.ReadFile(file)
			if lines := bytes.Count(text, []byte("\n")); err != nil || source && lines > mostLines {
				t.Errorf("%s has %d lines, more than %d (%v)", file, lines, mostLines, err)
			}
		}
	}
}

// command is how an example is run.
type command func(t *testing.T) []string

func golang(name string) command {
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

func python(file string) command {
	return func(t *testing.T) []string {
		t.Helper()
		return []string{program.Tool(t, "python3"), "-B", filepath.Join(folder, file)}
	}
}

func node(file string) command {
	return func(t *testing.T) []string {
		t.Helper()
		return []string{program.Tool(t, "node"), filepath.Join(folder, file)}
	}
}

// installed is node with the packages of the example's lock file.
func installed(file string) command {
	return func(t *testing.T) []string {
		t.Helper()
		dir := t.TempDir()
		text, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		program.Packages(t, filepath.Join(folder, filepath.Dir(file)), dir)
		script := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(script, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{program.Tool(t, "node"), script}
	}
}

// started is an example that runs until the test ends.
type started struct{ lines <-chan string }

func start(t *testing.T, args []string, env ...string) started {
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
	t.Cleanup(func() { // the end of the test's context has killed it
		reading.Wait()
		_ = cmd.Wait()
	})
	return started{lines}
}

// next is what the example prints next.
func (s started) next(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-s.lines:
		if !ok {
			t.Fatal("the example has ended")
		}
		return line
	case <-time.After(patience):
		t.Fatal("the example says nothing")
		return ""
	}
}

// address is where the example says that it listens.
func (s started) address(t *testing.T) string {
	t.Helper()
	line := s.next(t)
	found := regexp.MustCompile(`^listening at (https?://127\.0\.0\.1:\d+)/$`).FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("it says %q", line)
	}
	return found[1]
}

// post posts a task for 25 credits that asks for the capability "shouting".
func post(t *testing.T, server *program.Server, key, description string) (id string) {
	t.Helper()
	var data struct {
		PostTask struct{ Task struct{ ID string } }
	}
	err := server.Query(key, `mutation($description: String!) {
		postTask(input: {title: "Shout it", description: $description, budget: 25, requiredCapabilities: ["shouting"]}) { task { id } }
	}`, map[string]any{"description": description}, &data)
	if err != nil {
		t.Fatal(err)
	}
	return data.PostTask.Task.ID
}
