package database

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// errInUse is the error of a lock that another process holds.
var errInUse = errors.New("another process is using it: stop that process first")

// fileLock is the lock file next to a SQLite file. It prevents two processes from
// using the file, because each process assumes that it is the only writer. It also
// covers a file that does not exist yet. See [storeFile] for the lock of the file
// itself.
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
	err := lockWhole(l.file)
	switch {
	case errors.Is(err, errInUse):
		return err
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
// created it and the system can remove an open file.
func (l *fileLock) releaseAndRemove() error {
	if !l.created || !canRemoveOpenFile {
		return l.release()
	}
	return errors.Join(os.Remove(l.file.Name()), l.release())
}

// release releases the lock. The operating system does the same when the process
// ends.
func (l *fileLock) release() error { return l.file.Close() }
