package database

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// canRemoveOpenFile reports whether the system can remove an open file.
const canRemoveOpenFile = false

// lockedByte is the byte of a SQLite file that [lockByte] locks. SQLite locks bytes
// near 1 GiB, and its files end far below this one.
const lockedByte = 1 << 56

// lockWhole locks a file that SQLite does not use. It returns errInUse if another
// process holds the lock.
func lockWhole(file *os.File) error { return lockAt(file, 0) }

// lockByte locks one byte of a SQLite file, whatever path it was opened by. It returns
// errInUse if another process holds the lock.
func lockByte(file *os.File) error { return lockAt(file, lockedByte) }

func lockAt(file *os.File, offset uint64) error {
	at := windows.Overlapped{Offset: uint32(offset & 0xffffffff), OffsetHigh: uint32(offset >> 32)}
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errInUse
	}
	return err
}

// hardLinks returns the number of names of a file.
func hardLinks(file *os.File) (uint64, error) {
	var info windows.ByHandleFileInformation
	err := windows.GetFileInformationByHandle(windows.Handle(file.Fd()), &info)
	return uint64(info.NumberOfLinks), err
}

// isAccessibleToOthers returns false: Windows files have no mode.
func isAccessibleToOthers(os.FileInfo) bool { return false }
