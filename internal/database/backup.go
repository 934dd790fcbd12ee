package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// Backup copies the SQLite file at from to a new file at to. The copy is one
// committed state with the same schema. A server can use the source during the
// backup. Backup runs check on the copy and returns an error if the copy is
// damaged or check fails. It never overwrites a file, and it leaves no file behind
// when it fails.
func Backup(ctx context.Context, from, to string, check func(*Snapshot) error) error {
	if IsPostgres(from) {
		return errors.New("cannot back up a PostgreSQL database: use pg_dump")
	}
	if err := errors.Join(checkPath(from), checkPath(to)); err != nil {
		return err
	}
	return writeVerifiedFile(ctx, to, check, func(tmp string) error { return vacuumInto(ctx, from, tmp) })
}

// Restore copies the backup at from to a new database file at to and applies
// pending migrations to the copy. It checks the copy like [Backup].
func Restore(ctx context.Context, from, to string, check func(*Snapshot) error) error {
	if IsPostgres(from) || IsPostgres(to) {
		return errors.New("can only restore to a SQLite file: use agentmarket copy to move it to PostgreSQL")
	}
	if err := errors.Join(checkPath(from), checkPath(to)); err != nil {
		return err
	}
	to, err := ResolvePath(to) // so that the lock is next to the file
	if err != nil {
		return err
	}
	lock, err := lockFile(to)
	if err != nil {
		return err
	}
	err = writeVerifiedFile(ctx, to, check, func(tmp string) error {
		if err := vacuumInto(ctx, from, tmp); err != nil {
			return err
		}
		if err := rejectForeignFile(ctx, tmp); err != nil {
			return err
		}
		if err := Inspect(ctx, tmp, func(*Snapshot) error { return nil }); err != nil {
			return err // an empty file has no schema; migrating it would make an empty database
		}
		return migrateFile(ctx, tmp)
	})
	if err != nil {
		return errors.Join(err, lock.releaseAndRemove())
	}
	return lock.release()
}

// vacuumInto writes one committed state of the file at from to a new file at to.
func vacuumInto(ctx context.Context, from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would block forever
		return fmt.Errorf("open database: %s is not a regular file", from)
	}
	// Without _query_only: SQLite treats VACUUM INTO as a write.
	reader, err := connect(from, url.Values{"mode": {"ro"}, "_busy_timeout": {"10000"}})
	if err != nil {
		return fmt.Errorf("open database %s: %w", from, err)
	}
	return errors.Join(reader.WithContext(ctx).Exec("VACUUM INTO ?", to).Error, closeGorm(reader))
}

// writeVerifiedFile writes a file under a temporary name, verifies it, syncs it to
// disk, and gives it its final name. It never overwrites a file, and it leaves no
// file behind when it fails.
func writeVerifiedFile(ctx context.Context, path string, check func(*Snapshot) error, write func(tmp string) error) (err error) {
	for _, name := range []string{path, path + "-wal", path + "-journal"} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s already exists and is not overwritten", name)
		}
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".unfinished-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	tmp := filepath.Join(folder, filepath.Base(path))
	if err := write(tmp); err != nil {
		return err
	}
	if err := verifyFile(ctx, tmp, check); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(tmp, 0o600), Fsync(tmp)); err != nil {
		return err
	}
	if err := os.Link(tmp, path); err != nil { // unlike a rename, a link never replaces a file
		return err
	}
	if err := os.Remove(tmp); err != nil { // at once, because a store must have one name
		return err
	}
	return Fsync(filepath.Dir(path))
}

// verifyFile rejects a file that is damaged, belongs to another program, or fails
// check.
func verifyFile(ctx context.Context, path string, check func(*Snapshot) error) error {
	if err := rejectForeignFile(ctx, path); err != nil {
		return err
	}
	return Inspect(ctx, path, func(snapshot *Snapshot) error {
		if err := checkIntegrity(snapshot); err != nil {
			return err
		}
		return check(snapshot)
	})
}

// Fsync flushes a file, or the entries of a directory, to disk.
func Fsync(path string) error {
	file, err := os.Open(path) //nolint:gosec // the operator chooses the path
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
