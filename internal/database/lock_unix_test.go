//go:build unix

package database

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFileLock_removedWhileOpen checks that a lock file that was opened before its owner
// removed it cannot be locked. A lock file that existed before is not removed.
func TestFileLock_removedWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "market.db")
	first, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := openLockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if second.acquire() == nil {
		t.Error("two locks of one file")
	}
	if err := first.releaseAndRemove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".lock"); err == nil {
		t.Error("the lock file still exists")
	}
	if second.acquire() == nil {
		t.Error("locked a removed file")
	}
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	next, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.releaseAndRemove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Errorf("the existing lock file was removed: %v", err)
	}
	if err := second.release(); err != nil {
		t.Error(err)
	}
}
