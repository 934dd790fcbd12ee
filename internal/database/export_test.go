package database

import (
	"context"
	"fmt"
	"time"
)

// MigratePostgres brings a schema up to date, waiting so long for each lock.
func MigratePostgres(ctx context.Context, address string, within time.Duration) error {
	s, _, err := dial(ctx, address, nil)
	if err != nil {
		return err
	}
	defer s.release()
	return s.migrate(ctx, within)
}

// MaxBatch is how many changes share one commit at most.
const MaxBatch = maxBatch

// Closing is closed once Close has been called.
func (db *DB) Closing() <-chan struct{} { return db.closing }

// Refused reports whether the engine has answered that a transaction is not
// committed.
func Refused(err error) bool { return refused(err) }

// Apart reports whether a change of one row is not taken for one of the other.
func (db *DB) Apart(table, id, otherTable, other string) bool {
	return db.changes.slot(table, id) != db.changes.slot(otherTable, other)
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
