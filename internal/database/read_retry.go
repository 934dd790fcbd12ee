package database

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/callbacks"

	"agentmarket.space/server/models"
)

// readRetryTimeout is how long a read is retried while PostgreSQL is unavailable. A
// restart takes about a second, and clients wait longer than 3 seconds.
const readRetryTimeout = 3 * time.Second

// openReadHandle returns a gorm session for reads outside of transactions. It
// retries reads while PostgreSQL is unavailable, and returns UNAVAILABLE after
// readRetryTimeout.
func openReadHandle(pool *sql.DB) (*gorm.DB, error) {
	db, err := openGorm(pool)
	if err != nil {
		return nil, err
	}
	return db, errors.Join(
		db.Callback().Query().Replace("gorm:query", withReadRetry(callbacks.Query)),
		db.Callback().Row().Replace("gorm:row", withReadRetry(callbacks.RowQuery)),
		db.Callback().Raw().After("gorm:raw").Register("agentmarket:unavailable", translateStatementError),
	)
}

// withReadRetry wraps a gorm query callback with retries. It does not retry in a
// transaction, which is lost with its connection.
func withReadRetry(query func(*gorm.DB)) func(*gorm.DB) {
	return func(db *gorm.DB) {
		if db.Error != nil { // the query could not be built
			return
		}
		rows, isRows := db.Get("rows") // a query for rows deletes this setting
		query(db)
		if _, inTx := db.Statement.ConnPool.(gorm.TxCommitter); !inTx && shouldRetryRead(db) {
			retryRead(db, func() {
				if isRows {
					db.Statement.Settings.Store("rows", rows)
				}
				query(db)
			})
		}
		translateStatementError(db)
	}
}

// retryRead repeats a query until it reaches the server or readRetryTimeout ends.
func retryRead(db *gorm.DB, query func()) {
	ctx, cancel := context.WithTimeout(db.Statement.Context, readRetryTimeout)
	defer cancel()
	for retry := (backoff{}); shouldRetryRead(db) && retry.wait(ctx, nil); {
		db.Error = nil
		query()
	}
}

// translateStatementError applies TranslateReadError to the error of a statement.
func translateStatementError(db *gorm.DB) {
	db.Error = TranslateReadError(db.Statement.Context, db.Error)
}

// TranslateReadError converts the error of a read to UNAVAILABLE if the database
// was unreachable or timed out. It returns other errors unchanged. Code that scans
// [sql.Rows] calls it for the errors of the rows.
func TranslateReadError(ctx context.Context, err error) error {
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) && isTransient(err) {
		return models.Errorf(models.Unavailable, "the database is unavailable; try again")
	}
	return err
}

// shouldRetryRead reports whether a read failed with a transient error and its
// context is not done.
func shouldRetryRead(db *gorm.DB) bool {
	err := db.Error
	if row, ok := db.Statement.Dest.(*sql.Row); ok && err == nil {
		err = row.Err()
	}
	return err != nil && db.Statement.Context.Err() == nil && isTransient(err)
}
