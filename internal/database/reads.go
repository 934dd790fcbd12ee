package database

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/callbacks"

	"agentmarket.space/server/models"
)

// readPatience is for how long a read is tried again while the engine is away: a
// restart of PostgreSQL and a broken connection take a second or so, and whoever
// waits for a page has not given up by then.
const readPatience = 3 * time.Second

// readHandle is for reads outside of transactions. While the engine is away they
// are tried again, and end with UNAVAILABLE when it does not come back.
func readHandle(pool *sql.DB) (*gorm.DB, error) {
	handle, err := openHandle(pool)
	if err != nil {
		return nil, err
	}
	return handle, errors.Join(
		handle.Callback().Query().Replace("gorm:query", patiently(callbacks.Query)),
		handle.Callback().Row().Replace("gorm:row", patiently(callbacks.RowQuery)),
		handle.Callback().Raw().After("gorm:raw").Register("agentmarket:away", away),
	)
}

// patiently is a query that is run again, from its first row, while the engine
// is away and the caller waits. In a transaction it is not: that is gone.
func patiently(query func(*gorm.DB)) func(*gorm.DB) {
	return func(db *gorm.DB) {
		if db.Error != nil { // the query could not be built
			return
		}
		rows, several := db.Get("rows") // a query for rows forgets that it is one
		query(db)
		if _, within := db.Statement.ConnPool.(gorm.TxCommitter); !within && lost(db) {
			again(db, func() {
				if several {
					db.Statement.Settings.Store("rows", rows)
				}
				query(db)
			})
		}
		away(db)
	}
}

// again runs a query until it finds the engine or patience ends.
func again(db *gorm.DB, query func()) {
	trying, cancel := context.WithTimeout(db.Statement.Context, readPatience)
	defer cancel()
	for pause := leastPause; lost(db) && waited(trying, pause); pause = min(2*pause, mostPause) {
		db.Error = nil
		query()
	}
}

// waited waits for about as long, and reports whether ctx has not ended.
func waited(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // it spreads attempts
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// away says of a read that did not find the engine, or got no answer from it in
// time, that it may be tried again.
func away(db *gorm.DB) { db.Error = Away(db.Statement.Context, db.Error) }

// Away is the error of a read: UNAVAILABLE in place of one that says that the
// engine is away. Who reads rows itself asks it.
func Away(ctx context.Context, err error) error {
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) && transient(err) {
		return models.Errorf(models.Unavailable, "the database cannot be read now; try again")
	}
	return err
}

// lost reports whether a read did not find the engine, and its caller waits still.
func lost(db *gorm.DB) bool {
	err := db.Error
	if row, ok := db.Statement.Dest.(*sql.Row); ok && err == nil {
		err = row.Err()
	}
	return err != nil && db.Statement.Context.Err() == nil && transient(err)
}
