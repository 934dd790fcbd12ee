package testserver

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// installMutex is held by the test that installs; the others find what it leaves.
var installMutex sync.Mutex

// LinkNodeModules puts the npm packages of the package-lock.json in from into the folder
// into, as its node_modules. They are installed once and kept for later runs. Without
// npm the test is skipped, but not in CI.
func LinkNodeModules(tb testing.TB, from, into string) {
	tb.Helper()
	kept := installPackages(tb, from)
	if err := os.Symlink(filepath.Join(kept, "node_modules"), filepath.Join(into, "node_modules")); err != nil {
		tb.Fatal(err)
	}
}

// installPackages returns the folder that has the packages. Of two processes that install at
// once one finds the other's in its place.
func installPackages(tb testing.TB, from string) string {
	tb.Helper()
	npm := RequireTool(tb, "npm")
	lock, err := os.ReadFile(filepath.Join(from, "package-lock.json"))
	manifest, manifestErr := os.ReadFile(filepath.Join(from, "package.json"))
	if err := errors.Join(err, manifestErr); err != nil {
		tb.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	kept := filepath.Join(cache, "agentmarket-clients", fmt.Sprintf("%x", sha256.Sum256(lock))[:16])
	installMutex.Lock()
	defer installMutex.Unlock()
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		tb.Fatal(err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(kept), "installing-") //nolint:usetesting // what is moved must be on the same disk
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // what was not moved away
	err = errors.Join(os.WriteFile(filepath.Join(fresh, "package-lock.json"), lock, 0o600),
		os.WriteFile(filepath.Join(fresh, "package.json"), manifest, 0o600))
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(tb.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = fresh
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("npm ci: %v\n%s", err, text)
	}
	if err := os.Rename(fresh, kept); err != nil && !errors.Is(err, os.ErrExist) {
		tb.Fatal(err)
	}
	return kept
}
