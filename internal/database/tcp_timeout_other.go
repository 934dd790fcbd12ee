//go:build !linux

package database

import "syscall"

// setTCPUserTimeout does nothing on systems without TCP_USER_TIMEOUT.
func setTCPUserTimeout(string, string, syscall.RawConn) error { return nil }
