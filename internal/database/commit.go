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

// life is a query for what names one life of a server. A number of a transaction
// means the same for as long only: after a crash, and on another host, it may be
// given again. A restart changes the one time; a crash resets the statistics, as
// the manual promises, and so changes the other.
const life = "(SELECT pg_postmaster_start_time() || ' ' || stats_reset FROM pg_stat_bgwriter)"

// lifeKey is where a connection has the life of the server that it leads to.
const lifeKey = "agentmarket_life"

// errAborted is why a transaction is run again of which the engine said after all
// that it did not happen.
var errAborted = errors.New("the transaction was aborted")

// noteLife notes on a new connection which life of the server it leads to.
func noteLife(ctx context.Context, conn *pgx.Conn) error {
	var at *string
	err := conn.QueryRow(ctx, "SELECT "+life).Scan(&at)
	if _, unsupported := errors.AsType[*pgconn.PgError](err); unsupported || err == nil && at == nil {
		return nil // what becomes of a lost commit will not be known
	}
	if err != nil {
		return fmt.Errorf("ask for the start of the server: %w", err)
	}
	conn.PgConn().CustomData()[lifeKey] = *at
	return nil
}

// settle finds out what became of a transaction whose commit had an error. It
// returns nil when it is committed and all that it returns was read, and an error
// that is transient when it is not committed and can be. When neither is known,
// or the answer is gone, it is UNAVAILABLE and says which.
func (s *shared) settle(ctx context.Context, db *DB, p *pipeline, err error) error {
	if refused(err) {
		return fmt.Errorf("commit: %w", err)
	}
	status := s.status(ctx, p)
	if status == "committed" && s.beat(ctx, db.replica) != nil {
		status = "" // a synchronous standby may not have it: a commit that comes after it waits for both
	}
	db.logger.WarnContext(ctx, "lost the database during a commit", slog.Any("error", err), slog.String("status", status))
	switch {
	case status == "aborted":
		return errAborted
	case status == "committed" && !p.unread:
		return nil
	case status == "committed":
		return models.Errorf(models.Unavailable, "the change was made, but the answer to it was lost; with an Idempotency-Key it is safe to ask for it again")
	default:
		return models.Errorf(models.Unavailable,
			"the database went away while the change was written, which may have happened or not; with an Idempotency-Key it is safe to try again")
	}
}

// status asks what became of a transaction until ctx ends: it is committed,
// aborted, or, when nobody can know, empty. The server that is asked must be the
// one that ran it, and not have crashed since.
func (s *shared) status(ctx context.Context, p *pipeline) (status string) {
	at, _ := p.pgx.PgConn().CustomData()[lifeKey].(string)
	if at == "" || p.xid == "" {
		return ""
	}
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		var found *string
		err := s.own.QueryRow(ctx, "SELECT CASE WHEN "+life+" = $1 THEN pg_xact_status($2::text::xid8) END", at, p.xid).Scan(&found)
		switch {
		case err != nil && !transient(err), err == nil && found == nil:
			return ""
		case err == nil && *found != "in progress":
			return *found
		case !waited(ctx, pause):
			return ""
		}
	}
}
