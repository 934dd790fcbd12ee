package database

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lockedByte is the byte of a SQLite file that [lockByte] locks. SQLite locks bytes
// near 1 GiB, and its files end far below this one.
const lockedByte = 1 << 56

// lockByte locks one byte of a SQLite file, whatever path it was opened by. It returns
// errInUse if another process holds the lock. The lock belongs to the open file, so
// unlike SQLite's own locks it does not end when the process closes another descriptor
// of the file.
func lockByte(file *os.File) error {
	err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: lockedByte, Len: 1})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return errInUse
	}
	return err
}
