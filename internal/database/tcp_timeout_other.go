//go:build !linux

package database

import "syscall"

// setTCPUserTimeout does nothing where the system has no such limit.
func setTCPUserTimeout(string, string, syscall.RawConn) error { return nil }
