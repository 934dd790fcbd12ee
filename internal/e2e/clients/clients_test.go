// Package clients_test has the clients that people use speak with the built
// server: what they take for right is right.
package clients_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"agentmarket.space/server/internal/e2e/program"
)

func TestMain(m *testing.M) { program.Main(m) }

// script prepares a node script of testdata, with the clients at hand.
func script(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(install(t), "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{name, "clients.mjs"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), program.Tool(t, "node"), append([]string{filepath.Join(dir, name)}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// lines runs a script to its end and reads what it printed.
func lines[T any](t *testing.T, cmd *exec.Cmd) []T {
	t.Helper()
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, text)
	}
	var all []T
	scanner := bufio.NewScanner(bytes.NewReader(text))
	for scanner.Scan() {
		all = append(all, parse[T](t, scanner.Bytes()))
	}
	return all
}

func parse[T any](t *testing.T, text []byte) T {
	t.Helper()
	var line T
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return line
}

// install returns a folder that has the npm packages of package-lock.json. It is
// kept for the next run; of two that install at once one is thrown away.
func install(t *testing.T) string {
	t.Helper()
	npm := program.Tool(t, "npm")
	lock, err := os.ReadFile("testdata/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(cacheFolder(t), fmt.Sprintf("clients-%x", sha256.Sum256(lock))[:24])
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	fresh, err := os.MkdirTemp(filepath.Dir(kept), "installing-") //nolint:usetesting // what is moved must be on the same disk
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // what was not moved away
	if err := os.CopyFS(fresh, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = fresh
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, text)
	}
	if err := os.Rename(fresh, kept); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return kept
}

func cacheFolder(t *testing.T) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "agentmarket-tests")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
