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

// installMutex allows one installation at a time in this process.
var installMutex sync.Mutex

// LinkNodeModules installs the npm packages of from/package-lock.json and links them as
// node_modules in the folder into. The installation is installed for later runs. Without npm it
// skips the test; in CI it fails it.
func LinkNodeModules(tb testing.TB, from, into string) {
	tb.Helper()
	installed := installPackages(tb, from)
	if err := os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(into, "node_modules")); err != nil {
		tb.Fatal(err)
	}
}

// installPackages returns the folder with the installed packages. If two processes install
// at once, one uses the other's folder.
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
	installed := filepath.Join(cache, "agentmarket-clients", fmt.Sprintf("%x", sha256.Sum256(lock))[:16])
	installMutex.Lock()
	defer installMutex.Unlock()
	if _, err := os.Stat(installed); err == nil {
		return installed
	}
	if err := os.MkdirAll(filepath.Dir(installed), 0o700); err != nil {
		tb.Fatal(err)
	}
	staging, err := os.MkdirTemp(filepath.Dir(installed), "installing-") //nolint:usetesting // a rename needs the same file system
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(staging) //nolint:errcheck // it does not exist after the rename
	err = errors.Join(os.WriteFile(filepath.Join(staging, "package-lock.json"), lock, 0o600),
		os.WriteFile(filepath.Join(staging, "package.json"), manifest, 0o600))
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(tb.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = staging
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("npm ci: %v\n%s", err, text)
	}
	if err := os.Rename(staging, installed); err != nil && !errors.Is(err, os.ErrExist) {
		tb.Fatal(err)
	}
	return installed
}
