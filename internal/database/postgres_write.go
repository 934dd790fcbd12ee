package database

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// writeRetryTimeout is the time limit of Write on PostgreSQL, including retries.
const writeRetryTimeout = 10 * time.Second

// write runs fn in its own transaction. It retries after a conflict with another
// transaction, and after a lost connection if nothing was committed.
func (s *postgresStore) write(ctx context.Context, db *DB, fn func(*Tx) error) error {
	retryCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeRetryTimeout)
	defer cancel()
	for retry := (backoff{}); ; {
		err := s.writeOnce(ctx, retryCtx, db, fn)
		if err == nil || !isTransient(err) {
			return err
		}
		if retryCtx.Err() != nil {
			db.logger.ErrorContext(ctx, "cannot write to the database", slog.Any("error", err))
			db.notifyCommit(CommitStats{Err: err})
			return models.Errorf(models.Unavailable, "the database is unavailable; nothing was changed; try again")
		}
		if !retry.wait(ctx, db.closing) {
			return notStartedError(cmp.Or(context.Cause(ctx), errClosed))
		}
	}
}

// writeOnce runs one transaction. ctx can cancel it only before it begins. After
// that, txCtx limits it.
func (s *postgresStore) writeOnce(ctx, txCtx context.Context, db *DB, fn func(*Tx) error) (err error) {
	if ctx.Err() != nil {
		return notStartedError(context.Cause(ctx))
	}
	p, err := openPipeline(txCtx, s.sqlDB)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer p.close()
	tx := &Tx{DB: p.session(db.writer), pipeline: p, traceParent: tracing.Traceparent(ctx)}
	err = callWithRecover(fn, tx)
	if p.err != nil { // fn may have ignored it
		return p.err
	}
	if err != nil {
		return err
	}
	if len(tx.jobs) > 0 {
		if err = p.ensureBegun(); err == nil {
			_, err = s.jobInserter.InsertManyTx(txCtx, p.tx, tx.jobs)
		}
		if err != nil {
			return fmt.Errorf("enqueue jobs: %w", err)
		}
	}
	failpoint.Hit("batch-run")
	start := time.Now() //nolint:forbidigo // measures the database; the market's clock does not apply
	if err = p.send(true); err != nil {
		if err = s.resolveLostCommit(txCtx, db, p, err); err != nil {
			if models.CodeOf(err) == models.Unavailable {
				db.notifyCommit(CommitStats{Err: err})
			}
			return err
		}
	}
	failpoint.Hit("batch-committed")
	db.notifyCommit(CommitStats{Changes: 1, Duration: time.Since(start)}) //nolint:forbidigo // as above
	db.dataVersion.Add(1)
	db.jobNotifier.wakeForJobs(tx.jobs)
	for _, hook := range tx.commitHooks {
		hook()
	}
	return nil
}

// isRolledBack reports whether the server has confirmed that a transaction is not
// committed.
func isRolledBack(err error) bool {
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Severity != "ERROR" || pgErr.Code == "40003" { // statement completion unknown
		return false
	}
	switch pgErr.Code[:min(2, len(pgErr.Code))] {
	case "", "08", "57", "58", "XX": // connection, operator intervention, system, internal
		return false
	}
	return true
}

// isTransient reports whether the same transaction can succeed when it is retried:
// it conflicted with another one, or the server was unavailable before the commit.
func isTransient(err error) bool {
	if _, ok := errors.AsType[*models.Error](err); ok {
		return false
	}
	if errors.Is(err, errAborted) {
		return true
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case "40001", "40P01", // serialization failure, deadlock
			"25006", "53300", // read-only standby, too many connections
			"57P01", "57P02", "57P03": // shut down, crashed, starting
			return true
		case "0A000": // another replica has added a column; a retry prepares the statement again
			return strings.Contains(pgErr.Message, "cached plan")
		}
		return strings.HasPrefix(pgErr.Code, "08")
	}
	return isConnectionError(err)
}

// isConnectionError reports whether err is a failure of the connection to the
// server.
func isConnectionError(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok { // including the timeout of a transaction
		return true
	}
	return pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, driver.ErrBadConn)
}
