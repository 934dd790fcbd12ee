package database

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

const (
	// heartbeatInterval is the time between two heartbeats of a process. After
	// heartbeatTimeout without a heartbeat, other processes take over its work.
	heartbeatInterval = 3 * time.Second
	heartbeatTimeout  = 15 * time.Second
	// cursorBatchSize is the maximum number of events that get a cursor in one
	// transaction.
	cursorBatchSize = 1000
	eventsChannel   = "agentmarket_events"
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

// heartbeatLoop sends heartbeats until ctx is done, and then removes this process
// from the table replicas.
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
			db.logger.WarnContext(ctx, "replica heartbeat failed", slog.Any("error", err))
		}
	}
}

// deregister removes this process from the table replicas.
func (s *postgresStore) deregister(ctx context.Context, db *DB) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err := s.internalPool.Exec(ctx, "DELETE FROM replicas WHERE id = $1", db.replicaID); err != nil { // the heartbeat expires later
		db.logger.WarnContext(ctx, "replica deregistration failed", slog.Any("error", err))
	}
}

// heartbeat records that this process is alive, removes processes whose heartbeat
// has expired, and makes their jobs available again. It does the same for jobs that
// ran longer than the job timeout. All times are those of the database server.
func (s *postgresStore) heartbeat(ctx context.Context, replica string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	const now = "(EXTRACT(epoch FROM clock_timestamp()) * 1000000)::bigint"
	_, err := s.internalPool.Exec(ctx, `INSERT INTO replicas (id, seen_at) VALUES ($1, `+now+`)
		ON CONFLICT (id) DO UPDATE SET seen_at = EXCLUDED.seen_at`, replica)
	if err != nil {
		return fmt.Errorf("record heartbeat: %w", err)
	}
	if _, err = s.internalPool.Exec(ctx, "DELETE FROM replicas WHERE seen_at < "+now+" - $1::bigint", heartbeatTimeout.Microseconds()); err != nil {
		return fmt.Errorf("remove dead replicas: %w", err)
	}
	s.mu.Lock()
	var maxSeconds float64
	if s.jobTimeout > 0 {
		maxSeconds = (s.jobTimeout + heartbeatTimeout).Seconds()
	}
	s.mu.Unlock()
	_, err = s.internalPool.Exec(ctx, `UPDATE river_job SET state = 'available' WHERE state = 'running'
		AND (NOT EXISTS (SELECT 1 FROM replicas WHERE id = attempted_by[array_upper(attempted_by, 1)])
			OR $1::double precision > 0 AND attempted_at < clock_timestamp() - make_interval(secs => $1::double precision))`, maxSeconds)
	if err != nil {
		return fmt.Errorf("release lost jobs: %w", err)
	}
	return nil
}
