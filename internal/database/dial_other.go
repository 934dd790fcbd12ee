//go:build !linux

package database

import "syscall"

// limitSilence does nothing where the system has no such limit.
func limitSilence(string, string, syscall.RawConn) error { return nil }
