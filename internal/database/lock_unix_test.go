//go:build unix

package database

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFileLock_removedWhileOpen: whoever has opened the file of a lock before its owner took it away
// does not get a lock that nobody else would see. A file that was there before stays.
func TestFileLock_removedWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "market.db")
	first, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	late, err := openLockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if late.acquire() == nil {
		t.Error("two have the lock")
	}
	if err := first.releaseAndRemove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".lock"); err == nil {
		t.Error("its file is left")
	}
	if late.acquire() == nil {
		t.Error("a lock on what nobody finds was given")
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
		t.Errorf("what was there before is not: %v", err)
	}
	if err := late.release(); err != nil {
		t.Error(err)
	}
}
