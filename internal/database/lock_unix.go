//go:build unix

package database

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// fileLock keeps a second process from serving the same SQLite file: each would
// believe that it is the only one that writes.
type fileLock struct {
	file    *os.File
	created bool // the file was not there before
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

// openLockFile opens the file to be locked, and makes it when there is none.
func openLockFile(path string) (*fileLock, error) {
	file, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // the operator names the database
	if errors.Is(err, fs.ErrExist) {
		file, err = os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // as above
		return &fileLock{file: file}, err
	}
	return &fileLock{file: file, created: true}, err
}

// acquire locks the file, unless another process has.
func (l *fileLock) acquire() error {
	err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return errors.New("another process serves it")
	case err != nil:
		return fmt.Errorf("lock it: %w", err)
	case !l.isCurrent():
		return errors.New("another process has just let go of it; try again")
	}
	return nil
}

// isCurrent reports whether the file that is locked is the one that others find.
func (l *fileLock) isCurrent() bool {
	locked, err := l.file.Stat()
	if err != nil {
		return false
	}
	found, err := os.Stat(l.file.Name())
	return err == nil && os.SameFile(locked, found)
}

// releaseAndRemove lets go of the lock and leaves no file behind that it has made.
func (l *fileLock) releaseAndRemove() error {
	if !l.created {
		return l.release()
	}
	return errors.Join(os.Remove(l.file.Name()), l.release())
}

// release lets go of the lock; the operating system does it too when the
// process dies.
func (l *fileLock) release() error { return l.file.Close() }
