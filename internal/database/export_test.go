package database

import (
	"context"
	"fmt"
	"time"
)

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
