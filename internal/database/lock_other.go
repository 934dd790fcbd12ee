//go:build !unix && !windows

package database

import "os"

// canRemoveOpenFile reports whether the system can remove an open file.
const canRemoveOpenFile = false

// lockWhole does nothing on systems without file locks.
func lockWhole(*os.File) error { return nil }

// lockByte does nothing on systems without file locks.
func lockByte(*os.File) error { return nil }

// hardLinks returns 1, because the number of names of a file is unknown.
func hardLinks(*os.File) (uint64, error) { return 1, nil }

// isAccessibleToOthers returns false, because modes are unknown.
func isAccessibleToOthers(os.FileInfo) bool { return false }
