package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"testing"
	"testing/fstest"
	"time"
)

// AddMigration adds a migration to the program until the test ends. Call it after
// services.NewDatabase, which creates the template database. The test must not be
// parallel: parallel tests run only after it.
func AddMigration(t *testing.T, name, text string) {
	t.Helper()
	t.Setenv("AGENTMARKET_TEST_MIGRATION", name) // panics in a parallel test
	files := fstest.MapFS{}
	for _, d := range []dialect{sqliteDialect, postgresDialect} {
		names, err := fs.Glob(migrationFiles, d.folder+"/*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			content, err := migrationFiles.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = &fstest.MapFile{Data: content}
		}
		files[d.folder+"/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	migrations = files
	t.Cleanup(func() { migrations = migrationFiles })
}

// LatestMigration returns the number of the newest migration of the program.
func LatestMigration(t *testing.T) (version int64) {
	t.Helper()
	names, err := fs.Glob(migrationFiles, sqliteDialect.folder+"/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := fmt.Sscanf(path.Base(name), "%d_", &version); err != nil {
			t.Fatal(err)
		}
	}
	return version
}

// MigratePostgres applies pending migrations with a lock timeout.
func MigratePostgres(ctx context.Context, address string, timeout time.Duration) error {
	s, _, err := dialPostgres(ctx, address, nil)
	if err != nil {
		return err
	}
	defer s.closePools()
	return s.migrate(ctx, timeout)
}

// FillBatch indexes one batch of tasks, as a process does that then crashes.
func FillBatch(ctx context.Context, address string) error {
	tasks := wordsTables()[1]
	if IsPostgres(address) {
		s, _, err := dialPostgres(ctx, address, nil)
		if err != nil {
			return err
		}
		defer s.closePools()
		_, err = fillBatch(ctx, s.sqlDB, postgresDialect, tasks)
		return err
	}
	db, err := connect(address, url.Values{"_foreign_keys": {"on"}})
	if err != nil {
		return err
	}
	sqlDB, err := db.DB()
	if err == nil {
		_, err = fillBatch(ctx, sqlDB, sqliteDialect, tasks)
	}
	return errors.Join(err, closeGorm(db))
}

// MaxBatch is the maximum number of writes in one commit.
const MaxBatch = maxBatch

// Closing returns a channel that Close closes.
func (db *DB) Closing() <-chan struct{} { return db.closing }

// IsRolledBack reports whether the server has confirmed that a transaction is not
// committed.
func IsRolledBack(err error) bool { return isRolledBack(err) }

// InDifferentBuckets reports whether two rows have different buckets.
func (db *DB) InDifferentBuckets(table, id, otherTable, other string) bool {
	return db.rowVersions.bucket(table, id) != db.rowVersions.bucket(otherTable, other)
}

// LimitPages limits the size of the file, but not below its current size.
func (db *DB) LimitPages(pages int) error {
	return db.writer.Exec(fmt.Sprint("PRAGMA max_page_count = ", pages)).Error
}

// Reconnect replaces the write connection by a new one.
func (db *DB) Reconnect() error {
	pool, err := db.writer.DB()
	if err != nil {
		return err
	}
	pool.SetMaxIdleConns(0)
	pool.SetMaxIdleConns(1)
	return nil
}

// SetAwakeFor changes how long the client of r stays awake. Call it before Start.
func (r *JobRunner) SetAwakeFor(d time.Duration) { r.awakeFor = d }

// Listeners is 1 while the client of r sleeps and 2 while it runs.
func (r *JobRunner) Listeners() int {
	r.db.jobNotifier.mu.Lock()
	defer r.db.jobNotifier.mu.Unlock()
	return len(r.db.jobNotifier.listeners)
}

// RaiseGeneration writes the first mark of a start and calls fn before the mark is moved
// into the file.
func (db *DB) RaiseGeneration(fn func()) error {
	current, err := db.readGeneration()
	if err != nil {
		return err
	}
	if err := db.writeGeneration(current + 1); err != nil {
		return err
	}
	fn()
	return nil
}

// LimitHeavyReads sets how many heavy reads can run at the same time.
func LimitHeavyReads(db *DB, n int) { db.heavyReads = make(chan struct{}, n) }
