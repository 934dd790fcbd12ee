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
	pipe  *pipeline // nil on SQLite
	trace string
	hooks []func()
	jobs  []river.InsertManyParams
}

// Trace names what the transaction is part of for jobs that go on with it, see
// [tracing.Parent]; empty when it is not traced.
func (tx *Tx) Trace() string { return tx.trace }

// Run has a statement change one row, which it must. It is for hot paths, as it
// is, where building it through gorm would cost more than running it.
// Placeholders are question marks. On PostgreSQL it goes out with a later
// statement, and what is wrong with it fails that one or the commit.
func (tx *Tx) Run(query string, args ...any) error {
	if tx.pipe != nil {
		tx.pipe.queued = append(tx.pipe.queued, statement{query: changing(query), args: args})
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

// Insert is Run for a row that returns something, which is in the targets after
// the next Row, or the commit, at the latest.
func (tx *Tx) Insert(query string, args []any, into ...any) error {
	if tx.pipe != nil {
		tx.pipe.queued = append(tx.pipe.queued, statement{numbered(query), args, into})
		return nil
	}
	return tx.Row(query, args, into...)
}

// Row runs a query of a hot path that finds one row and reads it into the
// targets.
func (tx *Tx) Row(query string, args []any, into ...any) error {
	if tx.pipe != nil {
		return tx.pipe.row(numbered(query), args, into)
	}
	return tx.Statement.ConnPool.QueryRowContext(tx.Statement.Context, query, args...).Scan(into...) //nolint:wrapcheck // the caller knows what it asked
}

// RowLocked is Row for a row that this transaction goes by: no other changes it
// before this one has ended.
func (tx *Tx) RowLocked(query string, args []any, into ...any) error {
	if tx.pipe != nil {
		query += " FOR NO KEY UPDATE"
	}
	return tx.Row(query, args, into...)
}

// Locked is a session whose query locks the rows that it finds, as RowLocked
// does. Tables are locked in the order idempotency_keys, registrants, tasks,
// agents, secrets, deliveries, webhooks, wallets.
func (tx *Tx) Locked() *gorm.DB {
	return tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE"}) // SQLite's dialect leaves it out
}

// Free is a session whose query locks the rows that it finds and passes over those
// that another transaction holds.
func (tx *Tx) Free() *gorm.DB {
	return tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE", Options: "SKIP LOCKED"}) // SQLite's dialect leaves it out
}

// Alone has the transactions that name the same thing follow each other, each seeing
// what the one before committed. Those of SQLite do anyway. It comes before all rows
// that are locked but an idempotency key's.
func (tx *Tx) Alone(what string) error {
	if tx.pipe == nil {
		return nil
	}
	var locked int
	return tx.Row("SELECT 1 FROM pg_advisory_xact_lock(hashtextextended(?, 0))", []any{what}, &locked)
}

// OnCommit has fn run after the commit, and not at all when there is none. fn
// must be quick and must not fail.
func (tx *Tx) OnCommit(fn func()) { tx.hooks = append(tx.hooks, fn) }

// Joiner is the arguments of a job that may do the work of later ones of its kind.
type Joiner interface {
	river.JobArgs
	// Join returns what does the work of both, if one job may.
	Join(later river.JobArgs) (river.JobArgs, bool)
}

// Enqueue puts a job in the queue with the commit, perhaps joined with others of it.
func (tx *Tx) Enqueue(args river.JobArgs, opts *river.InsertOpts) {
	tx.jobs = append(tx.jobs, river.InsertManyParams{Args: args, InsertOpts: opts})
}

// write is the writer goroutine: it takes what waits, commits it at once, and
// answers.
func (db *DB) write() {
	defer close(db.done)
	for first := db.next(); first != nil; first = db.next() {
		batch := &batch{db: db, taken: []*change{first}}
		err := batch.commit()
		db.changes.publish(db.version.Add(1)) // whatever the error: it may be on the disk
		if err != nil {
			db.tell(Commit{Err: err})
			batch.fail(db.noRoom(err))
			continue
		}
		for _, c := range batch.kept {
			for _, hook := range c.tx.hooks {
				hook()
			}
		}
		for _, c := range batch.taken {
			c.answer <- db.noRoom(c.failed)
		}
	}
}

// next waits for a change. After Close it takes those that wait still; nil is
// the end.
func (db *DB) next() *change {
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
	db    *DB
	taken []*change // in the order they came
	kept  []*change // ran without an error
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
		if err := b.runOne(shared); err != nil {
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
		return errors.Join(fmt.Errorf("commit: %w", err), ignoreDone(shared.Rollback().Error))
	}
	b.db.tell(Commit{Changes: len(b.kept), Took: time.Since(begun)}) //nolint:forbidigo // as above
	failpoint.Hit("batch-committed")
	return nil
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// takeNext moves a waiting change into the batch, if there is one and room.
func (b *batch) takeNext() bool {
	if len(b.taken) == maxBatch {
		return false
	}
	select {
	case c := <-b.db.queue:
		b.taken = append(b.taken, c)
		return true
	default:
		return false
	}
}

// runOne runs the newest change of the batch. The error is the batch's: after
// a savepoint that cannot be rolled back nothing in the transaction is certain.
func (b *batch) runOne(shared *gorm.DB) error {
	c := b.taken[len(b.taken)-1]
	c.tx = &Tx{DB: shared.Session(&gorm.Session{NewDB: true}), trace: c.trace}
	if err := shared.Exec("SAVEPOINT change").Error; err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	c.failed = c.run()
	if c.failed != nil {
		if err := shared.Exec("ROLLBACK TO change").Error; err != nil { // SQLite has rolled back everything
			return fmt.Errorf("roll back one change: %w", errors.Join(err, c.failed))
		}
	}
	if err := shared.Exec("RELEASE change").Error; err != nil {
		return fmt.Errorf("release savepoint: %w", err)
	}
	if c.failed == nil {
		b.kept = append(b.kept, c)
	}
	return nil
}

// insertJobs puts the jobs of all kept changes in the queue with one statement.
func (b *batch) insertJobs(ctx context.Context, sqlTx *sql.Tx) error {
	var jobs []river.InsertManyParams
	for _, c := range b.kept {
		for _, job := range c.tx.jobs {
			jobs = enqueue(jobs, job)
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

// enqueue adds a job to those of a batch, joined with the last one of its kind when
// that takes it in.
func enqueue(jobs []river.InsertManyParams, job river.InsertManyParams) []river.InsertManyParams {
	for i := len(jobs) - 1; i >= 0 && job.InsertOpts == nil; i-- {
		if jobs[i].Args.Kind() != job.Args.Kind() {
			continue
		}
		if joiner, ok := jobs[i].Args.(Joiner); ok && jobs[i].InsertOpts == nil {
			if joined, ok := joiner.Join(job.Args); ok {
				jobs[i].Args = joined
				return jobs
			}
		}
		break
	}
	return append(jobs, job)
}

// noRoom makes an error of a full disk one that says so, and that asking again may
// help; others it leaves as they are.
func (db *DB) noRoom(err error) error {
	if err == nil || !full(resultCode(err)) {
		return err
	}
	db.logger.Error("cannot write: the disk of the database is full", slog.Any("error", err))
	return models.Errorf(models.Unavailable, "the disk of the database is full; nothing was changed; try again later")
}

// full reports whether a result code of SQLite means that there is no room for the
// file (SQLITE_FULL), or for what is beside it (SQLITE_IOERR_SHMSIZE).
func full(code int) bool { return code == 13 || code == 4874 }

// fail answers every change that the batch could not be committed: what one was
// refused for has not happened either.
func (b *batch) fail(err error) {
	for _, c := range b.taken {
		c.answer <- err
	}
}
