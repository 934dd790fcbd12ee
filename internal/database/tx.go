package database

import (
	"errors"
	"fmt"

	"github.com/riverqueue/river"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// Tx is a transaction in progress. It embeds a gorm session and collects the jobs
// and hooks of its commit.
type Tx struct {
	*gorm.DB
	pipeline    *pipeline // nil on SQLite
	traceParent string
	commitHooks []func()
	jobs        []river.InsertManyParams
}

// TraceParent returns the traceparent of the span that the transaction belongs to.
// Jobs use it to continue the trace. It is empty if the transaction is not traced.
func (tx *Tx) TraceParent() string { return tx.traceParent }

// ExecOne runs a statement that must change exactly one row. It is for hot paths:
// it bypasses gorm's query builder. Placeholders are question marks. On PostgreSQL
// the statement is queued and sent with a later one, which then returns its error.
func (tx *Tx) ExecOne(query string, args ...any) error {
	if tx.pipeline != nil {
		tx.pipeline.queued = append(tx.pipeline.queued, queuedStatement{query: failUnlessRowChanged(query), args: args})
		return nil
	}
	result, err := tx.Statement.ConnPool.ExecContext(tx.Statement.Context, query, args...)
	if err != nil {
		return err //nolint:wrapcheck // the caller knows the statement
	}
	if changed, err := result.RowsAffected(); err != nil || changed != 1 {
		return errors.Join(err, fmt.Errorf("changed %d rows, want 1: %s", changed, query))
	}
	return nil
}

// InsertReturning runs an INSERT with a RETURNING clause and scans the row into
// dest. On PostgreSQL dest is filled by the next QueryRow or by the commit.
func (tx *Tx) InsertReturning(query string, args []any, dest ...any) error {
	if tx.pipeline != nil {
		tx.pipeline.queued = append(tx.pipeline.queued, queuedStatement{dollarPlaceholders(query), args, dest})
		return nil
	}
	return tx.QueryRow(query, args, dest...)
}

// QueryRow runs a query and scans its first row into dest. It returns
// [sql.ErrNoRows] if there is none. Like ExecOne, it is for hot paths.
func (tx *Tx) QueryRow(query string, args []any, dest ...any) error {
	if tx.pipeline != nil {
		return tx.pipeline.queryRow(dollarPlaceholders(query), args, dest)
	}
	return tx.Statement.ConnPool.QueryRowContext(tx.Statement.Context, query, args...).Scan(dest...) //nolint:wrapcheck // the caller knows the query
}

// QueryRowForUpdate is QueryRow with a row lock: no other transaction changes the
// row until this one ends.
func (tx *Tx) QueryRowForUpdate(query string, args []any, dest ...any) error {
	if tx.pipeline != nil {
		query += " FOR NO KEY UPDATE"
	}
	return tx.QueryRow(query, args, dest...)
}

// ForUpdate returns a session whose query locks the rows it finds. To prevent
// deadlocks, lock tables in this order: idempotency_keys, registrants, tasks,
// agents, secrets, deliveries, webhooks, wallets.
func (tx *Tx) ForUpdate() *gorm.DB {
	return tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE"}) // gorm's SQLite dialect ignores the clause
}

// ForUpdateSkipLocked returns a session whose query locks the rows it finds and
// skips rows locked by other transactions.
func (tx *Tx) ForUpdateSkipLocked() *gorm.DB {
	return tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE", Options: "SKIP LOCKED"}) // gorm's SQLite dialect ignores the clause
}

// AdvisoryLock serializes transactions that lock the same name: each one sees what
// the previous one committed. Take it before any row lock except an idempotency
// key's. It does nothing on SQLite, where transactions are always serial.
func (tx *Tx) AdvisoryLock(name string) error {
	if tx.pipeline == nil {
		return nil
	}
	var locked int
	return tx.QueryRow("SELECT 1 FROM pg_advisory_xact_lock(hashtextextended(?, 0))", []any{name}, &locked)
}

// OnCommit registers fn to run after the commit. fn does not run if the transaction
// fails. It must return quickly.
func (tx *Tx) OnCommit(fn func()) { tx.commitHooks = append(tx.commitHooks, fn) }

// MergeableJob is implemented by job arguments that can include the work of a later
// job of the same kind.
type MergeableJob interface {
	river.JobArgs
	// Merge returns arguments that do the work of both jobs. It returns false if one
	// job cannot do both.
	Merge(later river.JobArgs) (river.JobArgs, bool)
}

// Enqueue inserts a job with the commit. On SQLite, mergeable jobs of one commit
// are merged.
func (tx *Tx) Enqueue(args river.JobArgs, opts *river.InsertOpts) {
	tx.jobs = append(tx.jobs, river.InsertManyParams{Args: args, InsertOpts: opts})
}
