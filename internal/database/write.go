package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/models"
)

// maxBatch is how many changes share one commit at most. Measured at 64
// callers: 8 a commit 2 781/s, 32 4 013/s, 128 3 617/s; larger ones only add
// latency.
const maxBatch = 128

// Tx is a transaction under way. It is gorm's session on it, and what is to
// happen with its commit.
type Tx struct {
	*gorm.DB
	pipeline    *pipeline // nil on SQLite
	traceParent string
	commitHooks []func()
	jobs        []river.InsertManyParams
}

// TraceParent names what the transaction is part of for jobs that go on with it, see
// [tracing.Parent]; empty when it is not traced.
func (tx *Tx) TraceParent() string { return tx.traceParent }

// ExecOne has a statement change one row, which it must. It is for hot paths, as it
// is, where building it through gorm would cost more than running it.
// Placeholders are question marks. On PostgreSQL it goes out with a later
// statement, and what is wrong with it fails that one or the commit.
func (tx *Tx) ExecOne(query string, args ...any) error {
	if tx.pipeline != nil {
		tx.pipeline.queued = append(tx.pipeline.queued, queuedStatement{query: failUnlessRowChanged(query), args: args})
		return nil
	}
	result, err := tx.Statement.ConnPool.ExecContext(tx.Statement.Context, query, args...)
	if err != nil {
		return err //nolint:wrapcheck // the caller knows what it ran
	}
	if changed, err := result.RowsAffected(); err != nil || changed != 1 {
		return errors.Join(err, fmt.Errorf("changed %d rows, not one: %s", changed, query))
	}
	return nil
}

// InsertReturning is Run for a row that returns something, which is in the targets after
// the next Row, or the commit, at the latest.
func (tx *Tx) InsertReturning(query string, args []any, into ...any) error {
	if tx.pipeline != nil {
		tx.pipeline.queued = append(tx.pipeline.queued, queuedStatement{dollarPlaceholders(query), args, into})
		return nil
	}
	return tx.QueryRow(query, args, into...)
}

// QueryRow runs a query of a hot path that finds one row and reads it into the
// targets.
func (tx *Tx) QueryRow(query string, args []any, into ...any) error {
	if tx.pipeline != nil {
		return tx.pipeline.queryRow(dollarPlaceholders(query), args, into)
	}
	return tx.Statement.ConnPool.QueryRowContext(tx.Statement.Context, query, args...).Scan(into...) //nolint:wrapcheck // the caller knows what it asked
}

// QueryRowForUpdate is Row for a row that this transaction goes by: no other changes it
// before this one has ended.
func (tx *Tx) QueryRowForUpdate(query string, args []any, into ...any) error {
	if tx.pipeline != nil {
		query += " FOR NO KEY UPDATE"
	}
	return tx.QueryRow(query, args, into...)
}

// ForUpdate is a session whose query locks the rows that it finds, as QueryRowForUpdate
// does. Tables are locked in the order idempotency_keys, registrants, tasks,
// agents, secrets, deliveries, webhooks, wallets.
func (tx *Tx) ForUpdate() *gorm.DB {
	return tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE"}) // SQLite's dialect leaves it out
}

// ForUpdateSkipLocked is a session whose query locks the rows that it finds and passes over those
// that another transaction holds.
func (tx *Tx) ForUpdateSkipLocked() *gorm.DB {
	return tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE", Options: "SKIP LOCKED"}) // SQLite's dialect leaves it out
}

// AdvisoryLock has the transactions that name the same thing follow each other, each seeing
// what the one before committed. Those of SQLite do anyway. It comes before all rows
// that are locked but an idempotency key's.
func (tx *Tx) AdvisoryLock(what string) error {
	if tx.pipeline == nil {
		return nil
	}
	var locked int
	return tx.QueryRow("SELECT 1 FROM pg_advisory_xact_lock(hashtextextended(?, 0))", []any{what}, &locked)
}

// OnCommit has fn run after the commit, and not at all when there is none. fn
// must be quick and must not fail.
func (tx *Tx) OnCommit(fn func()) { tx.commitHooks = append(tx.commitHooks, fn) }

// MergeableJob is the arguments of a job that may do the work of later ones of its kind.
type MergeableJob interface {
	river.JobArgs
	// Merge returns what does the work of both, if one job may.
	Merge(later river.JobArgs) (river.JobArgs, bool)
}

// Enqueue puts a job in the queue with the commit, perhaps joined with others of it.
func (tx *Tx) Enqueue(args river.JobArgs, opts *river.InsertOpts) {
	tx.jobs = append(tx.jobs, river.InsertManyParams{Args: args, InsertOpts: opts})
}

// runWriter is the writer goroutine: it takes what waits, commits it at once, and
// answers.
func (db *DB) runWriter() {
	defer close(db.done)
	for first := db.nextRequest(); first != nil; first = db.nextRequest() {
		batch := &batch{db: db, requests: []*writeRequest{first}}
		err := batch.commit()
		db.rowVersions.publish(db.dataVersion.Add(1)) // whatever the error: it may be on the disk
		if err != nil {
			db.notifyCommit(CommitStats{Err: err})
			batch.failAll(db.diskFullError(err))
			continue
		}
		for _, c := range batch.succeeded {
			for _, hook := range c.tx.commitHooks {
				hook()
			}
		}
		for _, c := range batch.requests {
			c.result <- db.diskFullError(c.err)
		}
	}
}

// nextRequest waits for a change. After Close it takes those that wait still; nil is
// the end.
func (db *DB) nextRequest() *writeRequest {
	select {
	case c := <-db.queue:
		return c
	case <-db.closing:
	}
	select {
	case c := <-db.queue:
		return c
	default:
		return nil
	}
}

// batch is the changes of one commit.
type batch struct {
	db        *DB
	requests  []*writeRequest // in the order they came
	succeeded []*writeRequest // ran without an error
}

// commit runs the changes, each behind its savepoint, and takes further ones
// as long as some wait. One that is refused waits for the commit as well: what
// it was refused for may be what its neighbours did. The context is the batch's
// own: one caller's must not reach a statement of all.
func (b *batch) commit() error {
	ctx := context.Background() //nolint:forbidigo // a caller that goes away must not take its neighbours along
	shared := b.db.writer.WithContext(ctx).Begin()
	if shared.Error != nil {
		return fmt.Errorf("begin: %w", shared.Error)
	}
	sqlTx, ok := shared.Statement.ConnPool.(*sql.Tx)
	if !ok {
		return errors.Join(fmt.Errorf("transaction is a %T", shared.Statement.ConnPool), shared.Rollback().Error)
	}
	for {
		if err := b.runInSavepoint(shared); err != nil {
			return errors.Join(err, shared.Rollback().Error)
		}
		if !b.takeNext() {
			break
		}
	}
	if err := b.insertJobs(ctx, sqlTx); err != nil {
		return errors.Join(err, shared.Rollback().Error)
	}
	failpoint.Hit("batch-run")
	begun := time.Now() //nolint:forbidigo // it is about the disk, not about the market
	if err := shared.Commit().Error; err != nil {
		return errors.Join(fmt.Errorf("commit: %w", err), ignoreTxDone(shared.Rollback().Error))
	}
	b.db.notifyCommit(CommitStats{Changes: len(b.succeeded), Duration: time.Since(begun)}) //nolint:forbidigo // as above
	failpoint.Hit("batch-committed")
	return nil
}

func ignoreTxDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// takeNext moves a waiting change into the batch, if there is one and room.
func (b *batch) takeNext() bool {
	if len(b.requests) == maxBatch {
		return false
	}
	select {
	case c := <-b.db.queue:
		b.requests = append(b.requests, c)
		return true
	default:
		return false
	}
}

// runInSavepoint runs the newest change of the batch. The error is the batch's: after
// a savepoint that cannot be rolled back nothing in the transaction is certain.
func (b *batch) runInSavepoint(shared *gorm.DB) error {
	c := b.requests[len(b.requests)-1]
	c.tx = &Tx{DB: shared.Session(&gorm.Session{NewDB: true}), traceParent: c.traceParent}
	if err := shared.Exec("SAVEPOINT change").Error; err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	c.err = c.run()
	if c.err != nil {
		if err := shared.Exec("ROLLBACK TO change").Error; err != nil { // SQLite has rolled back everything
			return fmt.Errorf("roll back one change: %w", errors.Join(err, c.err))
		}
	}
	if err := shared.Exec("RELEASE change").Error; err != nil {
		return fmt.Errorf("release savepoint: %w", err)
	}
	if c.err == nil {
		b.succeeded = append(b.succeeded, c)
	}
	return nil
}

// insertJobs puts the jobs of all kept changes in the queue with one statement.
func (b *batch) insertJobs(ctx context.Context, sqlTx *sql.Tx) error {
	var jobs []river.InsertManyParams
	for _, c := range b.succeeded {
		for _, job := range c.tx.jobs {
			jobs = mergeJob(jobs, job)
		}
	}
	if len(jobs) == 0 {
		return nil
	}
	if _, err := b.db.jobs.InsertManyFastTx(ctx, sqlTx, jobs); err != nil {
		return fmt.Errorf("enqueue jobs: %w", err)
	}
	return nil
}

// mergeJob adds a job to those of a batch, joined with the last one of its kind when
// that takes it in.
func mergeJob(jobs []river.InsertManyParams, job river.InsertManyParams) []river.InsertManyParams {
	for i := len(jobs) - 1; i >= 0 && job.InsertOpts == nil; i-- {
		if jobs[i].Args.Kind() != job.Args.Kind() {
			continue
		}
		if joiner, ok := jobs[i].Args.(MergeableJob); ok && jobs[i].InsertOpts == nil {
			if joined, ok := joiner.Merge(job.Args); ok {
				jobs[i].Args = joined
				return jobs
			}
		}
		break
	}
	return append(jobs, job)
}

// diskFullError makes an error of a full disk one that says so, and that asking again may
// help; others it leaves as they are.
func (db *DB) diskFullError(err error) error {
	if err == nil || !isDiskFull(resultCode(err)) {
		return err
	}
	db.logger.Error("cannot write: the disk of the database is full", slog.Any("error", err))
	return models.Errorf(models.Unavailable, "the disk of the database is full; nothing was changed; try again later")
}

// isDiskFull reports whether a result code of SQLite means that there is no room for the
// file (SQLITE_FULL), or for what is beside it (SQLITE_IOERR_SHMSIZE).
func isDiskFull(code int) bool { return code == 13 || code == 4874 }

// failAll answers every change that the batch could not be committed: what one was
// refused for has not happened either.
func (b *batch) failAll(err error) {
	for _, c := range b.requests {
		c.result <- err
	}
}
