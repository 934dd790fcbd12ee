package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// heartbeatInterval is how often a process says that it is there, and heartbeatTimeout how
	// long it may be silent before others take over what it was at.
	heartbeatInterval = 3 * time.Second
	heartbeatTimeout  = 15 * time.Second
	// cursorBatchSize is how many events one transaction gives cursors to.
	cursorBatchSize = 1000
	eventsChannel   = "agentmarket_events"
)

// OnRemoteEvents has fn called when another process has appended events. It may be
// called for no reason, and not at once. On SQLite there is no other process.
func (db *DB) OnRemoteEvents(fn func()) {
	if db.pg == nil {
		return
	}
	db.pg.mu.Lock()
	defer db.pg.mu.Unlock()
	db.pg.onEvents = fn
}

// AssignCursors gives cursors to the events that were committed without one, and
// reports whether there were any. When notify is set it has OnRemoteEvents called in
// the other processes. Any number of them may be at it at once. On SQLite every
// event has a cursor.
func (db *DB) AssignCursors(ctx context.Context, notify bool) (some bool, err error) {
	if db.pg == nil {
		return false, nil
	}
	return db.pg.assignCursors(ctx, notify)
}

// listen passes notifications on until ctx ends, over a connection of its own
// that is made again when it breaks.
func (s *postgresStore) listen(ctx context.Context, logger *slog.Logger) {
	for pause := minBackoff; ctx.Err() == nil; pause = min(2*pause, maxBackoff) {
		heard, err := s.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		logger.WarnContext(ctx, "lost the notifications of the database; looking for events every second", slog.Any("error", err))
		if heard {
			pause = minBackoff
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// listenOnce listens until the connection breaks. It reports whether there was one.
func (s *postgresStore) listenOnce(ctx context.Context) (heard bool, err error) {
	pooled, err := s.internalPool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	conn := pooled.Hijack()                      // it waits for ever and must not be lent to others
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it has said what is wrong
	if _, err := conn.Exec(ctx, "LISTEN "+eventsChannel); err != nil {
		return false, err
	}
	for {
		s.mu.Lock()
		tell := s.onEvents
		s.mu.Unlock()
		if tell != nil {
			tell()
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return true, err
		}
	}
}

// heartbeatLoop says that this process is there until ctx ends, and then that it is
// not.
func (s *postgresStore) heartbeatLoop(ctx context.Context, db *DB) {
	ticker := time.NewTicker(heartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			s.deregister(context.WithoutCancel(ctx), db)
			return
		case <-ticker.C:
		}
		if err := s.heartbeat(ctx, db.replicaID); err != nil && ctx.Err() == nil {
			db.logger.WarnContext(ctx, "cannot tell the other replicas that this one is there", slog.Any("error", err))
		}
	}
}

// deregister tells the others that this process is gone.
func (s *postgresStore) deregister(ctx context.Context, db *DB) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err := s.internalPool.Exec(ctx, "DELETE FROM replicas WHERE id = $1", db.replicaID); err != nil { // they find out by themselves
		db.logger.WarnContext(ctx, "cannot sign off from the database", slog.Any("error", err))
	}
}

// heartbeat notes that this process is there, forgets those that have fallen silent,
// and gives their jobs back, with those that ran out of time. The clock is the
// database's.
func (s *postgresStore) heartbeat(ctx context.Context, replica string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	const now = "(EXTRACT(epoch FROM clock_timestamp()) * 1000000)::bigint"
	_, err := s.internalPool.Exec(ctx, `INSERT INTO replicas (id, seen_at) VALUES ($1, `+now+`)
		ON CONFLICT (id) DO UPDATE SET seen_at = EXCLUDED.seen_at`, replica)
	if err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	if _, err = s.internalPool.Exec(ctx, "DELETE FROM replicas WHERE seen_at < "+now+" - $1::bigint", heartbeatTimeout.Microseconds()); err != nil {
		return fmt.Errorf("forget dead replicas: %w", err)
	}
	s.mu.Lock()
	var late float64 // seconds
	if s.jobTimeout > 0 {
		late = (s.jobTimeout + heartbeatTimeout).Seconds()
	}
	s.mu.Unlock()
	_, err = s.internalPool.Exec(ctx, `UPDATE river_job SET state = 'available' WHERE state = 'running'
		AND (NOT EXISTS (SELECT 1 FROM replicas WHERE id = attempted_by[array_upper(attempted_by, 1)])
			OR $1::double precision > 0 AND attempted_at < clock_timestamp() - make_interval(secs => $1::double precision))`, late)
	if err != nil {
		return fmt.Errorf("give back jobs: %w", err)
	}
	return nil
}

// isConnectionError reports whether an error is about the way to the engine.
func isConnectionError(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok { // a time-out of a transaction is one as well
		return true
	}
	return pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, driver.ErrBadConn)
}
