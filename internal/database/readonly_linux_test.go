package database_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
)

// TestOpen_readOnly checks that Open rejects a database that it cannot write.
func TestOpen_readOnly(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		folder, file os.FileMode
		wantErr      string // empty if Open succeeds
	}{
		"writable":         {0o777, 0o666, ""},
		"read-only folder": {0o555, 0o666, ".lock: permission denied"},
		"read-only file":   {0o777, 0o444, "a.db: permission denied"},
		"unreadable file":  {0o777, 0o000, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := closedDatabase(t)
			folder := filepath.Dir(path)
			testutil.Must(t, os.Chmod(filepath.Dir(folder), 0o755))
			testutil.Must(t, os.Remove(path+".lock"))
			testutil.Must(t, os.Chmod(path, row.file))
			testutil.Must(t, os.Chmod(folder, row.folder))
			defer func() { testutil.Must(t, os.Chmod(folder, 0o700)) }()
			err := asUnprivilegedUser(func() error {
				db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
				if err != nil {
					return err
				}
				return db.Close()
			})
			wantError(t, err, row.wantErr)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %v", err)
			}
		})
	}
}

// asUnprivilegedUser runs fn as a user other than root, because root ignores file
// modes. The thread ends with the goroutine.
func asUnprivilegedUser(fn func() error) error {
	const nobody = 65534
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			if err := syscall.Setfsuid(nobody); err != nil {
				result <- err
				return
			}
		}
		result <- fn()
	}()
	return <-result
}
