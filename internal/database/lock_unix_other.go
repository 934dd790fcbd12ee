//go:build unix && !linux

package database

import "os"

// lockByte does nothing. On these systems SQLite's locks belong to the process, and
// flock can conflict with them. The lock file next to the resolved path protects the
// file.
func lockByte(*os.File) error { return nil }
