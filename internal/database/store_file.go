package database

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"agentmarket.space/server/models"
)

// ErrFileLost is the error of reads on new connections, writes and pings after the
// SQLite file, or a file that belongs to it, was removed or replaced. Its code is
// UNAVAILABLE.
var ErrFileLost = models.Errorf(models.Unavailable,
	"the database file was removed or replaced, and a change may be lost with it: the operator must put it back and restart the server")

const (
	// fileCheckInterval is the time between two checks of the files of an idle store.
	fileCheckInterval = 5 * time.Second
	// privateMode is the mode of every file of a store.
	privateMode = 0o600
	// maxSymlinks is the maximum number of symbolic links in a row.
	maxSymlinks = 40
)

// storeFile is the open SQLite file of a store. SQLite opens the same file by its
// path. Close it only after SQLite's connections, because closing any descriptor of a
// file ends SQLite's locks on it.
type storeFile struct {
	path   string // without symbolic links
	file   *os.File
	opened map[string]os.FileInfo // the files that SQLite has open, by path
	lost   chan struct{}          // closed when one of them is not at its path any more
	isLost atomic.Bool
	// generation is the user_version of the file, 0 while it is not known. See
	// [DB.startGeneration].
	generation atomic.Uint32
	logger     *slog.Logger
}

// ResolvePath returns the absolute path of a file, without symbolic links. The file
// does not have to exist, but its folder does.
func ResolvePath(path string) (string, error) {
	for range maxSymlinks {
		folder, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err == nil {
			folder, err = filepath.Abs(folder)
		}
		if err != nil {
			return "", err
		}
		path = filepath.Join(folder, filepath.Base(path))
		target, err := os.Readlink(path)
		if err != nil { // not a link
			return path, nil //nolint:nilerr // a missing file is not a link either
		}
		if !filepath.IsAbs(target) {
			target = folder + string(filepath.Separator) + target // Join would drop a link before ".."
		}
		path = target
	}
	return "", fmt.Errorf("%s has too many symbolic links", path)
}

// openStoreFile opens and locks the SQLite file at path, which must have no symbolic
// links. It creates a missing file, and makes the files of the store accessible to
// their owner only.
func openStoreFile(path string, logger *slog.Logger) (*storeFile, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, errors.New("the path is a directory, want a file")
	case err == nil && !info.Mode().IsRegular(): // opening a pipe would block forever
		return nil, errors.New("the path is not a regular file")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := rejectOrphanedLog(path, info); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, privateMode) //nolint:gosec // the operator chooses the path
	if err != nil {
		return nil, err
	}
	f := &storeFile{path: path, file: file, opened: map[string]os.FileInfo{}, lost: make(chan struct{}), logger: logger}
	if err := f.lock(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	for _, name := range []string{path, path + "-wal", path + "-shm", path + "-journal", path + ".lock"} {
		RestrictMode(name, logger)
	}
	return f, f.record(path)
}

// rejectOrphanedLog returns an error if the database file is missing or empty, and the
// log of its changes is not. info is nil if the file is missing. SQLite would discard
// the log.
func rejectOrphanedLog(path string, info os.FileInfo) error {
	suffixes := []string{"-wal"}
	switch {
	case info == nil:
		suffixes = append(suffixes, "-journal")
	case info.Size() > 0:
		return nil
	}
	for _, suffix := range suffixes {
		if log, err := os.Stat(path + suffix); err == nil && log.Size() > 0 {
			return fmt.Errorf("the file is missing or empty, but %s holds changes: put the database back, or move %[1]s away to start with an empty one", filepath.Base(path+suffix))
		}
	}
	return nil
}

// lock locks the file. It rejects a file with several names, because SQLite finds the
// log of a file by its name.
func (f *storeFile) lock() error {
	if err := lockByte(f.file); err != nil {
		if errors.Is(err, errInUse) {
			return err
		}
		return fmt.Errorf("lock the file: %w", err)
	}
	links, err := hardLinks(f.file)
	if err != nil {
		return err
	}
	if links > 1 {
		return fmt.Errorf("the file has %d names (hard links): remove the others, which 'find -samefile' lists, or use a copy", links)
	}
	return nil
}

// RestrictMode makes a file accessible to its owner only. It logs a warning if other
// users had access. A missing file is not an error.
func RestrictMode(path string, logger *slog.Logger) {
	info, err := os.Stat(path)
	if err != nil || !isAccessibleToOthers(info) {
		return
	}
	if err := os.Chmod(path, privateMode); err != nil {
		logger.Warn("other users can access a file of the store, and its mode cannot be changed; set it to 0600", slog.String("file", path), slog.Any("error", err))
		return
	}
	logger.Warn("other users could access a file of the store; its mode is 0600 now", slog.String("file", path), slog.String("mode", info.Mode().Perm().String()))
}

// record remembers which files are at the paths. They are checked from now on.
func (f *storeFile) record(paths ...string) error {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		f.opened[path] = info
	}
	return nil
}

// check returns ErrFileLost if a file that SQLite has open is not at its path any
// more, or if the database file was overwritten. It logs the first such finding. After
// that it always returns ErrFileLost, because SQLite's state in memory no longer fits.
func (f *storeFile) check() error {
	if f.isLost.Load() {
		return ErrFileLost
	}
	err := f.findLoss()
	if err == nil {
		return nil
	}
	if f.isLost.CompareAndSwap(false, true) {
		f.logger.Error("the database file was removed or replaced; writes have stopped; put it back and restart the server", slog.Any("error", err))
		close(f.lost)
	}
	return ErrFileLost
}

func (f *storeFile) findLoss() error {
	for path, opened := range f.opened {
		current, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !os.SameFile(opened, current) {
			return fmt.Errorf("%s was replaced by another file", path)
		}
	}
	generation := f.generation.Load()
	if generation == 0 {
		return nil
	}
	header, err := readHeader(f.file)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if !header.logged || generation-header.generation > 1 {
		return fmt.Errorf("%s was overwritten", f.path)
	}
	return nil
}

// guardedConnector does not connect after the file was removed or replaced.
type guardedConnector struct {
	driver.Connector

	file *storeFile
}

// Connect implements [driver.Connector].
func (c guardedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := c.file.check(); err != nil {
		return nil, err
	}
	return c.Connector.Connect(ctx)
}

// fileHeader is what the store reads of a SQLite header.
type fileHeader struct {
	logged     bool   // the file uses a write-ahead log
	generation uint32 // user_version
}

// readHeader reads the header of a database file without its log.
func readHeader(file *os.File) (h fileHeader, err error) {
	var raw [100]byte
	if _, err := file.ReadAt(raw[:], 0); err != nil {
		return h, fmt.Errorf("read header: %w", err)
	}
	return fileHeader{logged: raw[18] == 2 && raw[19] == 2, generation: binary.BigEndian.Uint32(raw[60:])}, nil
}
