// Package audit keeps the audit log: security-relevant actions and rejected requests.
//
// An action is recorded in the transaction that performs it. Rejected requests are
// counted in memory and written in batches, so that an unauthenticated client cannot
// cause writes. The database rejects changes to entries, and deletes of recent ones.
package audit

import (
	"cmp"
	"context"
	"slices"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Log is the audit log. It is safe for concurrent use.
type Log struct {
	db       *database.DB
	now      func() time.Time
	rejected counter
}

// New returns the audit log of a database.
func New(db *database.DB, now func() time.Time) *Log {
	return &Log{db: db, now: now}
}

// Query selects entries of the audit log.
type Query struct {
	Actor  string // empty for all actors
	Before int64  // only entries with a lower Seq; 0 for no bound
	Limit  int
}

// Read returns the selected entries, newest first, for the operator. The read itself is
// recorded first. Rejections since the last [Log.Flush] are missing.
func (l *Log) Read(ctx context.Context, q Query) ([]models.AuditEntry, error) {
	err := l.db.Write(ctx, func(tx *database.Tx) error {
		return l.Record(ctx, tx, models.OperatorActor, models.AuditRead, q.Actor)
	})
	if err != nil {
		return nil, err
	}
	query := l.db.Read(ctx).Order("seq DESC").Limit(q.Limit)
	if q.Actor != "" {
		query = query.Where("actor = ?", q.Actor)
	}
	if q.Before > 0 {
		query = query.Where("seq < ?", q.Before)
	}
	entries := []models.AuditEntry{}
	return entries, query.Find(&entries).Error
}

// Record writes an entry for a successful action in the transaction that performs it,
// with the address and the id of the request in ctx.
func (l *Log) Record(ctx context.Context, tx *database.Tx, actor string, action models.AuditAction, object string) error {
	request := auth.RequestFrom(ctx)
	return tx.ExecOne(`INSERT INTO audit_entries (created_at, actor, action, object, address, request_id, outcome, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		models.NewTime(l.now()), actor, action, object, request.Address, request.ID, models.AuditOK, 1)
}

// CountRejection counts a rejected request by action, code and client network. It does
// not write to the database; see [Log.Flush].
func (l *Log) CountRejection(ctx context.Context, action models.AuditAction, code models.Code) {
	l.rejected.add(rejection{action, auth.RequestFrom(ctx).Network(), code})
}

// Flush writes an entry for each kind of rejection counted since the last call. If the
// write fails, the counts are kept for the next call.
func (l *Log) Flush(ctx context.Context) error {
	counts := l.rejected.drain()
	if len(counts) == 0 {
		return nil
	}
	entries := make([]models.AuditEntry, 0, len(counts))
	for r, n := range counts {
		entries = append(entries, models.AuditEntry{CreatedAt: models.NewTime(l.now()), Action: r.action, Address: r.network, Outcome: string(r.code), Count: n})
	}
	slices.SortFunc(entries, func(a, b models.AuditEntry) int {
		return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Outcome, b.Outcome))
	})
	err := l.db.Write(ctx, func(tx *database.Tx) error { return tx.Create(slices.Clone(entries)).Error })
	if err != nil {
		l.rejected.restore(counts)
	}
	return err
}

// Prune deletes entries older than retention; 0 keeps all.
func (l *Log) Prune(ctx context.Context, retention time.Duration) error {
	if retention == 0 {
		return nil
	}
	return l.db.DeleteExpired(ctx, &models.AuditEntry{}, "seq", "created_at", models.NewTime(l.now()).Add(-retention))
}
