package database

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"agentmarket.space/server/models"
)

// serverInstanceSQL identifies one run of a PostgreSQL server. A transaction ID is
// unique only within one run: after a crash, or on another host, the server can
// assign it again. A restart changes the start time. A crash also resets the
// statistics, as the PostgreSQL manual documents.
const serverInstanceSQL = "(SELECT pg_postmaster_start_time() || ' ' || stats_reset FROM pg_stat_bgwriter)"

// serverInstanceKey is the key in a connection's custom data for the server
// instance.
const serverInstanceKey = "agentmarket_server_instance"

// errAborted is the error of a transaction that PostgreSQL reports as aborted. It
// is transient.
var errAborted = errors.New("the transaction was aborted")

// storeServerInstance records the server instance of a new connection.
func storeServerInstance(ctx context.Context, conn *pgx.Conn) error {
	var instance *string
	err := conn.QueryRow(ctx, "SELECT "+serverInstanceSQL).Scan(&instance)
	if _, unsupported := errors.AsType[*pgconn.PgError](err); unsupported || err == nil && instance == nil {
		return nil // the outcome of a lost commit stays unknown
	}
	if err != nil {
		return fmt.Errorf("read server start time: %w", err)
	}
	conn.PgConn().CustomData()[serverInstanceKey] = *instance
	return nil
}

// resolveLostCommit determines the outcome of a transaction whose commit returned
// err. It returns nil if the transaction is committed and all its results were
// read. It returns a transient error if the transaction is not committed. If the
// outcome is unknown or results are lost, it returns UNAVAILABLE.
func (s *postgresStore) resolveLostCommit(ctx context.Context, db *DB, p *pipeline, err error) error {
	if isRolledBack(err) {
		return fmt.Errorf("commit: %w", err)
	}
	status := s.transactionStatus(ctx, p)
	if status == "committed" && s.heartbeat(ctx, db.replicaID) != nil {
		status = "" // A synchronous standby may not have the commit. A later commit waits for both.
	}
	db.logger.WarnContext(ctx, "connection lost during a commit", slog.Any("error", err), slog.String("status", status))
	switch {
	case status == "aborted":
		return errAborted
	case status == "committed" && !p.resultsUnread:
		return nil
	case status == "committed":
		return models.Errorf(models.Unavailable,
			"the change was committed, but its result was lost; a retry with the same Idempotency-Key is safe")
	default:
		return models.Errorf(models.Unavailable,
			"the database connection was lost during the commit, which may have succeeded; a retry with the same Idempotency-Key is safe")
	}
}

// transactionStatus returns "committed" or "aborted", or the empty string if the
// status is unknown. It retries until ctx is done. The status is known only on the
// server that ran the transaction, until that server crashes.
func (s *postgresStore) transactionStatus(ctx context.Context, p *pipeline) (status string) {
	instance, _ := p.pgxConn.PgConn().CustomData()[serverInstanceKey].(string)
	if instance == "" || p.xid == "" {
		return ""
	}
	for retry := (backoff{}); ; {
		var status *string
		err := s.internalPool.QueryRow(ctx, "SELECT CASE WHEN "+serverInstanceSQL+" = $1 THEN pg_xact_status($2::text::xid8) END", instance, p.xid).Scan(&status)
		switch {
		case err != nil && !isTransient(err), err == nil && status == nil:
			return ""
		case err == nil && *status != "in progress":
			return *status
		case !retry.wait(ctx, nil):
			return ""
		}
	}
}
