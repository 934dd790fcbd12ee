//go:build unix

package database

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// fileLock keeps a second process from serving the same SQLite file: each would
// believe that it is the only one that writes.
type fileLock struct{ file *os.File }

func lockFile(path string) (*fileLock, error) {
	file, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator names the database
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("open database %s: another process serves it", path), file.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock database %s: %w", path, err), file.Close())
	}
	return &fileLock{file: file}, nil
}

// release lets go of the lock; the operating system does it too when the
// process dies.
func (l *fileLock) release() error { return l.file.Close() }
