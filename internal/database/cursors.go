package database

import (
	"context"
	"fmt"
	"log/slog"
)

const (
	// cursorBatchSize is the maximum number of events that get a cursor in one
	// transaction.
	cursorBatchSize = 1000
	// eventsChannel is the PostgreSQL channel that announces new events.
	eventsChannel = "agentmarket_events"
)

// OnRemoteEvents registers fn to run when another process has appended events. fn
// can also run without new events, and with a delay. It never runs on SQLite.
func (db *DB) OnRemoteEvents(fn func()) {
	if db.pg == nil {
		return
	}
	db.pg.mu.Lock()
	defer db.pg.mu.Unlock()
	db.pg.onEvents = fn
}

// AssignCursors assigns cursors to committed events that have none. It reports
// whether there were any. If notify is true, it triggers the OnRemoteEvents
// functions of the other processes. Processes can call it concurrently. It does
// nothing on SQLite, where an insert assigns the cursor.
func (db *DB) AssignCursors(ctx context.Context, notify bool) (assigned bool, err error) {
	if db.pg == nil {
		return false, nil
	}
	return db.pg.assignCursors(ctx, notify)
}

// assignCursors implements [DB.AssignCursors]. The cursors follow the order of the
// event IDs: a transaction that saw another's events has larger IDs.
func (s *postgresStore) assignCursors(ctx context.Context, notify bool) (assigned bool, err error) {
	for {
		var n int64
		if err := s.internalPool.QueryRow(ctx, "SELECT assign_cursors($1, $2)", cursorBatchSize, notify).Scan(&n); err != nil {
			return assigned, fmt.Errorf("assign cursors: %w", err)
		}
		assigned = assigned || n > 0
		if n < cursorBatchSize {
			return assigned, nil
		}
	}
}

// listen forwards notifications until ctx is done. It reconnects when its
// connection breaks.
func (s *postgresStore) listen(ctx context.Context, logger *slog.Logger) {
	for retry := (backoff{}); ctx.Err() == nil; retry.wait(ctx, nil) {
		connected, err := s.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		logger.WarnContext(ctx, "lost database notifications; polling for events every second", slog.Any("error", err))
		if connected {
			retry.reset()
		}
	}
}

// listenOnce listens until the connection breaks. connected is true if it was
// established.
func (s *postgresStore) listenOnce(ctx context.Context) (connected bool, err error) {
	pooled, err := s.internalPool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	conn := pooled.Hijack()                      // takes the connection out of the pool, because it stays in use
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the connection is already broken
	if _, err := conn.Exec(ctx, "LISTEN "+eventsChannel); err != nil {
		return false, err
	}
	for {
		s.mu.Lock()
		onEvents := s.onEvents
		s.mu.Unlock()
		if onEvents != nil {
			onEvents()
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return true, err
		}
	}
}
