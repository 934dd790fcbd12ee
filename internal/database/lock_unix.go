//go:build unix

package database

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// canRemoveOpenFile reports whether the system can remove an open file.
const canRemoveOpenFile = true

// lockWhole locks a file that SQLite does not use. It returns errInUse if another
// process holds the lock.
func lockWhole(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errInUse
	}
	return err
}

// hardLinks returns the number of names of a file.
func hardLinks(file *os.File) (uint64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("stat returned a %T", info.Sys())
	}
	return uint64(stat.Nlink), nil //nolint:unconvert // its type differs between systems
}

// isAccessibleToOthers reports whether users other than the owner can access a file.
func isAccessibleToOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
