//go:build !unix && !windows

package database

// fileLock does nothing on systems without file locks.
type fileLock struct{}

func lockFile(string) (*fileLock, error) { return &fileLock{}, nil }

func (*fileLock) release() error { return nil }

func (*fileLock) releaseAndRemove() error { return nil }
