//go:build !unix

package database

// fileLock does nothing where there is no flock.
type fileLock struct{}

func lockFile(string) (*fileLock, error) { return &fileLock{}, nil }

func (*fileLock) release() error { return nil }

func (*fileLock) undo() error { return nil }
