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

// Backup writes one committed state of the SQLite file at from, which a server
// may be serving, to a new file at to. The schema stays as it is, that of an older
// program too. See [publish] for what it promises.
func Backup(ctx context.Context, from, to string, check func(*Snapshot) error) error {
	if IsPostgres(from) {
		return errors.New("the backup of a PostgreSQL database is pg_dump's work")
	}
	if err := errors.Join(checkPath(from), checkPath(to)); err != nil {
		return err
	}
	return writeVerifiedFile(ctx, to, check, func(unfinished string) error { return vacuumInto(ctx, from, unfinished) })
}

// Restore is Backup the other way: to is where a server is to serve it from. What
// an older program left is brought up to date on the way.
func Restore(ctx context.Context, from, to string, check func(*Snapshot) error) error {
	if IsPostgres(from) || IsPostgres(to) {
		return errors.New("a backup is restored to a SQLite file; agentmarket copy moves that to PostgreSQL")
	}
	if err := errors.Join(checkPath(from), checkPath(to)); err != nil {
		return err
	}
	lock, err := lockFile(to)
	if err != nil {
		return err
	}
	err = writeVerifiedFile(ctx, to, check, func(unfinished string) error {
		if err := vacuumInto(ctx, from, unfinished); err != nil {
			return err
		}
		if err := rejectForeignFile(ctx, unfinished); err != nil {
			return err
		}
		if err := Inspect(ctx, unfinished, func(*Snapshot) error { return nil }); err != nil {
			return err // an empty file would be made a market without anybody in it
		}
		return migrateFile(ctx, unfinished)
	})
	if err != nil {
		return errors.Join(err, lock.releaseAndRemove())
	}
	return lock.release()
}

// vacuumInto writes one committed state of a file to a new one.
func vacuumInto(ctx context.Context, from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for ever
		return fmt.Errorf("open database: %s is not a file", from)
	}
	// Not as Read's connections are: for SQLite this is writing.
	reader, err := connect(from, url.Values{"mode": {"ro"}, "_busy_timeout": {"10000"}}, 1, nil)
	if err != nil {
		return fmt.Errorf("open database %s: %w", from, err)
	}
	return errors.Join(reader.WithContext(ctx).Exec("VACUUM INTO ?", to).Error, closeGorm(reader))
}

// writeVerifiedFile has a file written under another name. Once it is found undamaged, has
// passed check and is on the disk, it gets its own. Whatever fails leaves
// nothing behind, and nothing is ever overwritten.
func writeVerifiedFile(ctx context.Context, path string, check func(*Snapshot) error, write func(unfinished string) error) (err error) {
	for _, part := range []string{path, path + "-wal", path + "-journal"} {
		if _, err := os.Lstat(part); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already: nothing is overwritten", part)
		}
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".unfinished-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	unfinished := filepath.Join(folder, filepath.Base(path))
	if err := write(unfinished); err != nil {
		return err
	}
	if err := verifyFile(ctx, unfinished, check); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(unfinished, 0o600), Fsync(unfinished)); err != nil {
		return err
	}
	if err := os.Link(unfinished, path); err != nil { // unlike a rename it never replaces one that came meanwhile
		return err
	}
	return Fsync(filepath.Dir(path))
}

// verifyFile refuses a file that is damaged, is no market or does not pass
// check.
func verifyFile(ctx context.Context, path string, check func(*Snapshot) error) error {
	if err := rejectForeignFile(ctx, path); err != nil {
		return err
	}
	return Inspect(ctx, path, func(state *Snapshot) error {
		if err := checkIntegrity(state); err != nil {
			return err
		}
		return check(state)
	})
}

// Fsync has a file, or what a folder lists, on the disk.
func Fsync(path string) error {
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
