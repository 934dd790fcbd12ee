//go:build unix

package database

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// fileLock prevents two processes from using one SQLite file. Each process assumes
// that it is the only writer.
type fileLock struct {
	file    *os.File
	created bool // by this process
}

func lockFile(path string) (*fileLock, error) {
	lock, err := openLockFile(path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	if err := lock.acquire(); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, err), lock.file.Close())
	}
	return lock, nil
}

// openLockFile opens the lock file. It creates a missing file.
func openLockFile(path string) (*fileLock, error) {
	file, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // the operator chooses the path
	if errors.Is(err, fs.ErrExist) {
		file, err = os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // as above
		return &fileLock{file: file}, err
	}
	return &fileLock{file: file, created: true}, err
}

// acquire locks the file. It returns an error if another process holds the lock.
func (l *fileLock) acquire() error {
	err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return errors.New("another process is using it")
	case err != nil:
		return fmt.Errorf("lock file: %w", err)
	case !l.isCurrent():
		return errors.New("another process just released its lock: try again")
	}
	return nil
}

// isCurrent reports whether the locked file still exists at its path. Its previous
// owner may have removed it.
func (l *fileLock) isCurrent() bool {
	locked, err := l.file.Stat()
	if err != nil {
		return false
	}
	current, err := os.Stat(l.file.Name())
	return err == nil && os.SameFile(locked, current)
}

// releaseAndRemove releases the lock and removes the lock file if this process
// created it.
func (l *fileLock) releaseAndRemove() error {
	if !l.created {
		return l.release()
	}
	return errors.Join(os.Remove(l.file.Name()), l.release())
}

// release releases the lock. The operating system does the same when the process
// ends.
func (l *fileLock) release() error { return l.file.Close() }
