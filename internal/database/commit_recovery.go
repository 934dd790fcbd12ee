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

// serverInstanceSQL is a query for what names one life of a server. A number of a transaction
// means the same for as long only: after a crash, and on another host, it may be
// given again. A restart changes the one time; a crash resets the statistics, as
// the manual promises, and so changes the other.
const serverInstanceSQL = "(SELECT pg_postmaster_start_time() || ' ' || stats_reset FROM pg_stat_bgwriter)"

// serverInstanceKey is where a connection has the life of the server that it leads to.
const serverInstanceKey = "agentmarket_life"

// errAborted is why a transaction is run again of which the engine said after all
// that it did not happen.
var errAborted = errors.New("the transaction was aborted")

// storeServerInstance notes on a new connection which life of the server it leads to.
func storeServerInstance(ctx context.Context, conn *pgx.Conn) error {
	var at *string
	err := conn.QueryRow(ctx, "SELECT "+serverInstanceSQL).Scan(&at)
	if _, unsupported := errors.AsType[*pgconn.PgError](err); unsupported || err == nil && at == nil {
		return nil // what becomes of a lost commit will not be known
	}
	if err != nil {
		return fmt.Errorf("ask for the start of the server: %w", err)
	}
	conn.PgConn().CustomData()[serverInstanceKey] = *at
	return nil
}

// resolveLostCommit finds out what became of a transaction whose commit had an error. It
// returns nil when it is committed and all that it returns was read, and an error
// that is transient when it is not committed and can be. When neither is known,
// or the answer is gone, it is UNAVAILABLE and says which.
func (s *postgresStore) resolveLostCommit(ctx context.Context, db *DB, p *pipeline, err error) error {
	if isRolledBack(err) {
		return fmt.Errorf("commit: %w", err)
	}
	status := s.transactionStatus(ctx, p)
	if status == "committed" && s.heartbeat(ctx, db.replicaID) != nil {
		status = "" // a synchronous standby may not have it: a commit that comes after it waits for both
	}
	db.logger.WarnContext(ctx, "lost the database during a commit", slog.Any("error", err), slog.String("status", status))
	switch {
	case status == "aborted":
		return errAborted
	case status == "committed" && !p.resultsUnread:
		return nil
	case status == "committed":
		return models.Errorf(models.Unavailable, "the change was made, but the answer to it was lost; with an Idempotency-Key it is safe to ask for it again")
	default:
		return models.Errorf(models.Unavailable,
			"the database went away while the change was written, which may have happened or not; with an Idempotency-Key it is safe to try again")
	}
}

// transactionStatus asks what became of a transaction until ctx ends: it is committed,
// aborted, or, when nobody can know, empty. The server that is asked must be the
// one that ran it, and not have crashed since.
func (s *postgresStore) transactionStatus(ctx context.Context, p *pipeline) (status string) {
	at, _ := p.pgxConn.PgConn().CustomData()[serverInstanceKey].(string)
	if at == "" || p.xid == "" {
		return ""
	}
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		var found *string
		err := s.internalPool.QueryRow(ctx, "SELECT CASE WHEN "+serverInstanceSQL+" = $1 THEN pg_xact_status($2::text::xid8) END", at, p.xid).Scan(&found)
		switch {
		case err != nil && !isTransient(err), err == nil && found == nil:
			return ""
		case err == nil && *found != "in progress":
			return *found
		case !sleepWithJitter(ctx, pause):
			return ""
		}
	}
}
