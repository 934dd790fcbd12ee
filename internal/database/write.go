package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"gorm.io/gorm"

	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// maxBatch is the maximum number of writes in one commit. Measured at 64 callers:
// 2 781/s with 8 per commit, 4 013/s with 32, 3 617/s with 128. Larger batches only
// add latency.
const maxBatch = 128

// errClosed is the error of a Write after Close.
var errClosed = errors.New("the database is closed")

// Write runs fn in a transaction and returns nil when the commit is on disk. If fn
// returns an error or panics, its changes are rolled back and Write returns the
// error. ctx can cancel the write only before fn starts. fn must not call Write,
// which would wait for fn itself, and must not call anything outside the database.
//
// On PostgreSQL transactions run concurrently. fn must lock rows that it reads and
// depends on, and fn can run again from the start after a conflict.
func (db *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	ctx, span := tracing.Start(ctx, "transaction")
	err := db.submitWrite(ctx, fn)
	if span.IsRecording() {
		if err != nil {
			span.SetError(string(models.CodeOf(err)))
		}
		span.End()
	}
	return err
}

// submitWrite queues fn for the writer and waits for its result.
func (db *DB) submitWrite(ctx context.Context, fn func(*Tx) error) error {
	select {
	case <-db.closing:
		return notStartedError(errClosed)
	default:
	}
	if db.pg != nil {
		return db.pg.write(ctx, db, fn)
	}
	c := &writeRequest{ctx: ctx, fn: fn, traceParent: tracing.Traceparent(ctx), result: make(chan error, 1)}
	select {
	case db.queue <- c:
	case <-ctx.Done():
		return notStartedError(context.Cause(ctx))
	case <-db.closing:
		return notStartedError(errClosed)
	}
	select {
	case err := <-c.result:
		return err
	case <-ctx.Done():
	case <-db.done:
	}
	if !c.claimed.CompareAndSwap(false, true) { // fn has started
		return <-c.result
	}
	return notStartedError(cmp.Or(context.Cause(ctx), errClosed))
}

func notStartedError(cause error) error { return fmt.Errorf("transaction not started: %w", cause) }

// writeRequest is one call of Write in the queue of the writer.
type writeRequest struct {
	ctx context.Context //nolint:containedctx // only checked before fn starts
	fn  func(*Tx) error
	// claimed is set by the writer when it starts fn, or by the caller when it cancels
	// the request.
	claimed     atomic.Bool
	traceParent string
	result      chan error
	tx          *Tx
	err         error // of fn, or of a cancelled request
}

// run calls fn unless the caller has cancelled the request.
func (c *writeRequest) run() error {
	if c.ctx.Err() != nil || !c.claimed.CompareAndSwap(false, true) {
		return notStartedError(context.Cause(c.ctx))
	}
	return callWithRecover(c.fn, c.tx)
}

// callWithRecover calls fn and converts a panic to an error.
func callWithRecover(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if r := recover(); r != nil {
			stack := make([]byte, 8<<10)
			err = fmt.Errorf("panic in a transaction: %v\n%s", r, stack[:runtime.Stack(stack, false)])
		}
	}()
	return fn(tx)
}

// runWriter is the writer goroutine. It commits queued requests in batches and
// sends the results.
func (db *DB) runWriter() {
	defer close(db.done)
	for first := db.nextRequest(); first != nil; first = db.nextRequest() {
		batch := &batch{db: db, requests: []*writeRequest{first}}
		err := batch.commit()
		db.rowVersions.publish(db.dataVersion.Add(1)) // also after an error: the commit may be on disk
		if err != nil {
			if db.file.check() != nil { // the reason for any other error
				err = ErrFileLost
			}
			db.notifyCommit(CommitStats{Err: err})
			batch.failAll(db.diskFullError(err))
			continue
		}
		for _, c := range batch.succeeded {
			db.jobNotifier.wakeForJobs(c.tx.jobs)
			for _, hook := range c.tx.commitHooks {
				hook()
			}
		}
		for _, c := range batch.requests {
			c.result <- db.diskFullError(c.err)
		}
	}
}

// nextRequest waits for a request. After Close it returns the remaining requests
// and then nil.
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

// batch is the set of requests in one commit.
type batch struct {
	db        *DB
	requests  []*writeRequest // in arrival order
	succeeded []*writeRequest // without an error
}

// commit runs the requests, each behind its own savepoint, and adds queued requests
// until the queue is empty. A failed request also waits for the commit, because it
// can fail because of another request in the batch. The transaction has its own
// context, so that no caller can cancel a batch.
func (b *batch) commit() error {
	ctx := context.Background() //nolint:forbidigo // a cancelled caller must not cancel the batch
	tx := b.db.writer.WithContext(ctx).Begin()
	if tx.Error != nil {
		return fmt.Errorf("begin: %w", tx.Error)
	}
	sqlTx, ok := tx.Statement.ConnPool.(*sql.Tx)
	if !ok {
		return errors.Join(fmt.Errorf("transaction is a %T", tx.Statement.ConnPool), tx.Rollback().Error)
	}
	for {
		if err := b.runInSavepoint(tx); err != nil {
			return errors.Join(err, tx.Rollback().Error)
		}
		if !b.takeNext() {
			break
		}
	}
	if err := b.insertJobs(ctx, sqlTx); err != nil {
		return errors.Join(err, tx.Rollback().Error)
	}
	failpoint.Hit("batch-run")
	if err := b.db.file.check(); err != nil { // a commit to a removed file would be lost
		return errors.Join(err, tx.Rollback().Error)
	}
	start := time.Now() //nolint:forbidigo // measures the disk; the market's clock does not apply
	if err := tx.Commit().Error; err != nil {
		return errors.Join(fmt.Errorf("commit: %w", err), ignoreTxDone(tx.Rollback().Error))
	}
	b.db.notifyCommit(CommitStats{Changes: len(b.succeeded), Duration: time.Since(start)}) //nolint:forbidigo // as above
	failpoint.Hit("batch-committed")
	return nil
}

func ignoreTxDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// takeNext moves one queued request to the batch. It returns false if the queue is
// empty or the batch is full.
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

// runInSavepoint runs the last request of the batch. An error fails the whole
// batch: if a savepoint cannot be rolled back, the state of the transaction is
// unknown.
func (b *batch) runInSavepoint(tx *gorm.DB) error {
	c := b.requests[len(b.requests)-1]
	c.tx = &Tx{DB: tx.Session(&gorm.Session{NewDB: true}), traceParent: c.traceParent}
	if err := tx.Exec("SAVEPOINT change").Error; err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	c.err = c.run()
	if c.err != nil {
		if err := tx.Exec("ROLLBACK TO change").Error; err != nil { // SQLite has rolled back the whole transaction
			return fmt.Errorf("roll back one change: %w", errors.Join(err, c.err))
		}
	}
	if err := tx.Exec("RELEASE change").Error; err != nil {
		return fmt.Errorf("release savepoint: %w", err)
	}
	if c.err == nil {
		b.succeeded = append(b.succeeded, c)
	}
	return nil
}

// insertJobs inserts the jobs of all successful requests with one statement.
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

// mergeJob appends a job, or merges it with the last job of the same kind.
func mergeJob(jobs []river.InsertManyParams, job river.InsertManyParams) []river.InsertManyParams {
	for i := len(jobs) - 1; i >= 0 && job.InsertOpts == nil; i-- {
		if jobs[i].Args.Kind() != job.Args.Kind() {
			continue
		}
		if mergeable, ok := jobs[i].Args.(MergeableJob); ok && jobs[i].InsertOpts == nil {
			if merged, ok := mergeable.Merge(job.Args); ok {
				jobs[i].Args = merged
				return jobs
			}
		}
		break
	}
	return append(jobs, job)
}

// diskFullError logs a disk-full error and converts it to UNAVAILABLE. It returns
// other errors unchanged.
func (db *DB) diskFullError(err error) error {
	if err == nil || !isDiskFull(resultCode(err)) {
		return err
	}
	db.logger.Error("the database disk is full", slog.Any("error", err))
	return models.Errorf(models.Unavailable, "the database disk is full; nothing was changed; try again later")
}

// isDiskFull reports whether a SQLite result code means that there is no space for
// the database (SQLITE_FULL) or its shared memory file (SQLITE_IOERR_SHMSIZE).
func isDiskFull(code int) bool { return code == 13 || code == 4874 }

// failAll sends err to every request of the batch. All of them were rolled back.
func (b *batch) failAll(err error) {
	for _, c := range b.requests {
		c.result <- err
	}
}
