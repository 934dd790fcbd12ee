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

// readRetryTimeout is for how long a read is tried again while the engine is away: a
// restart of PostgreSQL and a broken connection take a second or so, and whoever
// waits for a page has not given up by then.
const readRetryTimeout = 3 * time.Second

// openReadHandle is for reads outside of transactions. While the engine is away they
// are tried again, and end with UNAVAILABLE when it does not come back.
func openReadHandle(pool *sql.DB) (*gorm.DB, error) {
	handle, err := openGorm(pool)
	if err != nil {
		return nil, err
	}
	return handle, errors.Join(
		handle.Callback().Query().Replace("gorm:query", withReadRetry(callbacks.Query)),
		handle.Callback().Row().Replace("gorm:row", withReadRetry(callbacks.RowQuery)),
		handle.Callback().Raw().After("gorm:raw").Register("agentmarket:away", translateStatementError),
	)
}

// withReadRetry is a query that is run again, from its first row, while the engine
// is away and the caller waits. In a transaction it is not: that is gone.
func withReadRetry(query func(*gorm.DB)) func(*gorm.DB) {
	return func(db *gorm.DB) {
		if db.Error != nil { // the query could not be built
			return
		}
		rows, several := db.Get("rows") // a query for rows forgets that it is one
		query(db)
		if _, within := db.Statement.ConnPool.(gorm.TxCommitter); !within && shouldRetryRead(db) {
			retryRead(db, func() {
				if several {
					db.Statement.Settings.Store("rows", rows)
				}
				query(db)
			})
		}
		translateStatementError(db)
	}
}

// retryRead runs a query until it finds the engine or patience ends.
func retryRead(db *gorm.DB, query func()) {
	trying, cancel := context.WithTimeout(db.Statement.Context, readRetryTimeout)
	defer cancel()
	for pause := minBackoff; shouldRetryRead(db) && sleepWithJitter(trying, pause); pause = min(2*pause, maxBackoff) {
		db.Error = nil
		query()
	}
}

// sleepWithJitter waits for about as long, and reports whether ctx has not ended.
func sleepWithJitter(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // it spreads attempts
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// translateStatementError says of a read that did not find the engine, or got no answer from it in
// time, that it may be tried again.
func translateStatementError(db *gorm.DB) {
	db.Error = TranslateReadError(db.Statement.Context, db.Error)
}

// TranslateReadError is the error of a read: UNAVAILABLE in place of one that says that the
// engine is away. Who reads rows itself asks it.
func TranslateReadError(ctx context.Context, err error) error {
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) && isTransient(err) {
		return models.Errorf(models.Unavailable, "the database cannot be read now; try again")
	}
	return err
}

// shouldRetryRead reports whether a read did not find the engine, and its caller waits still.
func shouldRetryRead(db *gorm.DB) bool {
	err := db.Error
	if row, ok := db.Statement.Dest.(*sql.Row); ok && err == nil {
		err = row.Err()
	}
	return err != nil && db.Statement.Context.Err() == nil && isTransient(err)
}
