//go:build !unix && !windows

package database

// fileLock does nothing where there is no lock on files.
type fileLock struct{}

func lockFile(string) (*fileLock, error) { return &fileLock{}, nil }

func (*fileLock) release() error { return nil }

func (*fileLock) releaseAndRemove() error { return nil }
