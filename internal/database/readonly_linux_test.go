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

// TestOpen_readOnly: a store that could be read but not written is refused when
// it is opened, and left as it was.
func TestOpen_readOnly(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		folder, file os.FileMode
		says         string // empty when it opens
	}{
		"all may be written": {0o777, 0o666, ""},
		"the folder":         {0o555, 0o666, ".lock: permission denied"},
		"the file":           {0o777, 0o444, "attempt to write a readonly database"},
		"not even read":      {0o777, 0o000, "permission denied"},
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
			wantError(t, err, row.says)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
		})
	}
}

// asUnprivilegedUser runs fn as a user whom file modes bind: root is not. The thread is
// given up with the goroutine.
func asUnprivilegedUser(fn func() error) error {
	const nobody = 65534
	answer := make(chan error)
	go func() {
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			if err := syscall.Setfsuid(nobody); err != nil {
				answer <- err
				return
			}
		}
		answer <- fn()
	}()
	return <-answer
}
