package market

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// mostCounted is how many kinds of refusals are told apart between two entries: who
// comes from more networks is counted as one.
const mostCounted = 1000

// elsewhere stands for the networks past those.
const elsewhere = "elsewhere"

// AuditQuery is which entries of the audit log to read, newest first.
type AuditQuery struct {
	Actor  string // empty for all
	Before int64  // the number of the first entry that is too new, 0 for none
	Limit  int
}

// Audit reads the audit log for the operator, who is noted in it first. Refusals come
// in by and by: those of the last ten seconds may be missing.
func (m *Market) Audit(ctx context.Context, q AuditQuery) ([]models.AuditEntry, error) {
	err := m.DB.Write(ctx, func(tx *database.Tx) error {
		return m.note(ctx, tx, models.OperatorActor, models.AuditRead, q.Actor)
	})
	if err != nil {
		return nil, err
	}
	query := m.DB.Read(ctx).Order("seq DESC").Limit(q.Limit)
	if q.Actor != "" {
		query = query.Where("actor = ?", q.Actor)
	}
	if q.Before > 0 {
		query = query.Where("seq < ?", q.Before)
	}
	entries := []models.AuditEntry{}
	return entries, query.Find(&entries).Error
}

// Note writes what the operator did at the server itself.
func (m *Market) Note(tx *database.Tx, action models.AuditAction, object string) error {
	return audit(tx, models.AuditEntry{CreatedAt: m.now(), Actor: models.OperatorActor, Action: action, Object: object, Outcome: models.AuditOK, Times: 1})
}

// note writes what an actor did, in the transaction that does it.
func (m *Market) note(ctx context.Context, tx *database.Tx, actor string, action models.AuditAction, object string) error {
	request := auth.RequestFrom(ctx)
	return audit(tx, models.AuditEntry{
		CreatedAt: m.now(), Actor: actor, Action: action, Object: object,
		Address: request.Address, RequestID: request.ID, Outcome: models.AuditOK, Times: 1,
	})
}

func audit(tx *database.Tx, e models.AuditEntry) error {
	return tx.Run(`INSERT INTO audit_entries (created_at, actor, action, object, address, request_id, outcome, times) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		e.CreatedAt, e.Actor, e.Action, e.Object, e.Address, e.RequestID, e.Outcome, e.Times)
}

// Refused counts a refusal for the audit log. It writes nothing itself: a stranger
// must not have the store written to by being turned away.
func (m *Market) Refused(ctx context.Context, action models.AuditAction, code models.Code) {
	m.counted.add(refusal{action, auth.RequestFrom(ctx).Network(), code})
}

// refusal is a kind of refusal.
type refusal struct {
	action  models.AuditAction
	network string
	code    models.Code
}

// counts are the refusals since the last entries.
type counts struct {
	mu    sync.Mutex
	times map[refusal]int64
}

func (c *counts) add(r refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(r, 1)
}

// count counts a kind so many times. The lock is held.
func (c *counts) count(r refusal, times int64) {
	if c.times == nil {
		c.times = map[refusal]int64{}
	}
	if _, known := c.times[r]; !known && len(c.times) >= mostCounted {
		r.network = elsewhere
	}
	c.times[r] += times
}

// take returns what was counted and begins anew.
func (c *counts) take() map[refusal]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	times := c.times
	c.times = nil
	return times
}

// WriteRefusals writes the refusals that were counted, an entry for each kind. What
// cannot be written is counted on.
func (m *Market) WriteRefusals(ctx context.Context) error {
	times := m.counted.take()
	if len(times) == 0 {
		return nil
	}
	entries := make([]models.AuditEntry, 0, len(times))
	for r, n := range times {
		entries = append(entries, models.AuditEntry{CreatedAt: m.now(), Action: r.action, Address: r.network, Outcome: string(r.code), Times: n})
	}
	slices.SortFunc(entries, func(a, b models.AuditEntry) int {
		return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Outcome, b.Outcome))
	})
	err := m.DB.Write(ctx, func(tx *database.Tx) error { return tx.Create(slices.Clone(entries)).Error })
	if err != nil {
		m.counted.putBack(times)
	}
	return err
}

// putBack counts what was taken again, and what came meanwhile as if after it.
func (c *counts) putBack(times map[refusal]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	meanwhile := c.times
	c.times = times
	for r, n := range meanwhile {
		c.count(r, n)
	}
}
