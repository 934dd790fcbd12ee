package database

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// heartbeatInterval is the time between two heartbeats of a process. After
	// heartbeatTimeout without a heartbeat, other processes take over its work.
	heartbeatInterval = 3 * time.Second
	heartbeatTimeout  = 15 * time.Second
)

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
	s.mu.Lock()
	var maxSeconds float64
	if s.jobTimeout > 0 {
		maxSeconds = (s.jobTimeout + heartbeatTimeout).Seconds()
	}
	s.mu.Unlock()
	const now = "(EXTRACT(epoch FROM clock_timestamp()) * 1000000)::bigint"
	batch := &pgx.Batch{} // one round trip; each statement still sees what the one before has changed
	batch.Queue(`INSERT INTO replicas (id, seen_at) VALUES ($1, `+now+`)
		ON CONFLICT (id) DO UPDATE SET seen_at = EXCLUDED.seen_at`, replica)
	batch.Queue("DELETE FROM replicas WHERE seen_at < "+now+" - $1::bigint", heartbeatTimeout.Microseconds())
	batch.Queue(`UPDATE river_job SET state = 'available' WHERE state = 'running'
		AND (NOT EXISTS (SELECT 1 FROM replicas WHERE id = attempted_by[array_upper(attempted_by, 1)])
			OR $1::double precision > 0 AND attempted_at < clock_timestamp() - make_interval(secs => $1::double precision))`, maxSeconds)
	if err := s.internalPool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("record heartbeat: %w", err)
	}
	return nil
}
