package database

import (
	"context"
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"
)

// AddMigration adds a migration to the program until the test ends. Call it after
// services.Address, which makes the template store. The test must not be parallel:
// parallel tests run only after it.
func AddMigration(t *testing.T, name, text string) {
	t.Helper()
	t.Setenv("AGENTMARKET_TEST_MIGRATION", name) // it fails in a parallel test
	files := fstest.MapFS{}
	for _, of := range []dialect{sqliteDialect, postgresDialect} {
		names, err := fs.Glob(embedded, of.folder+"/*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			content, err := embedded.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = &fstest.MapFile{Data: content}
		}
		files[of.folder+"/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	migrations = files
	t.Cleanup(func() { migrations = embedded })
}

// MigratePostgres brings a schema up to date, waiting so long for each lock.
func MigratePostgres(ctx context.Context, address string, within time.Duration) error {
	s, _, err := dialPostgres(ctx, address, nil)
	if err != nil {
		return err
	}
	defer s.closePools()
	return s.migrate(ctx, within)
}

// MaxBatch is how many changes share one commit at most.
const MaxBatch = maxBatch

// Closing is closed once Close has been called.
func (db *DB) Closing() <-chan struct{} { return db.closing }

// IsRolledBack reports whether the engine has answered that a transaction is not
// committed.
func IsRolledBack(err error) bool { return isRolledBack(err) }

// InDifferentBuckets reports whether a change of one row is not taken for one of the other.
func (db *DB) InDifferentBuckets(table, id, otherTable, other string) bool {
	return db.rowVersions.bucket(table, id) != db.rowVersions.bucket(otherTable, other)
}

// LimitPages lets the file have so many pages from now on, or as many as it has.
func (db *DB) LimitPages(most int) error {
	return db.writer.Exec(fmt.Sprint("PRAGMA max_page_count = ", most)).Error
}

// Reconnect has the writing connection replaced by a new one.
func (db *DB) Reconnect() error {
	pool, err := db.writer.DB()
	if err != nil {
		return err
	}
	pool.SetMaxIdleConns(0)
	pool.SetMaxIdleConns(1)
	return nil
}
