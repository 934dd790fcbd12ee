package database

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// fileLock prevents two processes from using one SQLite file. Each process assumes
// that it is the only writer.
type fileLock struct{ file *os.File }

func lockFile(path string) (*fileLock, error) {
	file, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	err = windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return nil, errors.Join(fmt.Errorf("open database %s: another process is using it", path), file.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock database %s: %w", path, err), file.Close())
	}
	return &fileLock{file: file}, nil
}

// release releases the lock. The operating system does the same when the process
// ends.
func (l *fileLock) release() error { return l.file.Close() }

// releaseAndRemove releases the lock. It keeps the file: Windows cannot remove an
// open file.
func (l *fileLock) releaseAndRemove() error { return l.release() }
