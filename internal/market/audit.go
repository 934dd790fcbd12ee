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

// maxRejectionKinds is how many kinds of refusals are told apart between two entries: who
// comes from more networks is counted as one.
const maxRejectionKinds = 1000

// otherNetworks stands for the networks past those.
const otherNetworks = "elsewhere"

// AuditQuery is which entries of the audit log to read, newest first.
type AuditQuery struct {
	Actor  string // empty for all
	Before int64  // the number of the first entry that is too new, 0 for none
	Limit  int
}

// ReadAuditLog reads the audit log for the operator, who is noted in it first. Refusals come
// in by and by: those of the last ten seconds may be missing.
func (m *Market) ReadAuditLog(ctx context.Context, q AuditQuery) ([]models.AuditEntry, error) {
	err := m.DB.Write(ctx, func(tx *database.Tx) error {
		return m.recordAudit(ctx, tx, models.OperatorActor, models.AuditRead, q.Actor)
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

// RecordOperatorAction writes what the operator did at the server itself.
func (m *Market) RecordOperatorAction(tx *database.Tx, action models.AuditAction, object string) error {
	return insertAuditEntry(tx, models.AuditEntry{CreatedAt: m.now(), Actor: models.OperatorActor, Action: action, Object: object, Outcome: models.AuditOK, Count: 1})
}

// recordAudit writes what an actor did, in the transaction that does it.
func (m *Market) recordAudit(ctx context.Context, tx *database.Tx, actor string, action models.AuditAction, object string) error {
	request := auth.RequestFrom(ctx)
	return insertAuditEntry(tx, models.AuditEntry{
		CreatedAt: m.now(), Actor: actor, Action: action, Object: object,
		Address: request.Address, RequestID: request.ID, Outcome: models.AuditOK, Count: 1,
	})
}

func insertAuditEntry(tx *database.Tx, e models.AuditEntry) error {
	return tx.ExecOne(`INSERT INTO audit_entries (created_at, actor, action, object, address, request_id, outcome, times) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		e.CreatedAt, e.Actor, e.Action, e.Object, e.Address, e.RequestID, e.Outcome, e.Count)
}

// RecordRejection counts a refusal for the audit log. It writes nothing itself: a stranger
// must not have the store written to by being turned away.
func (m *Market) RecordRejection(ctx context.Context, action models.AuditAction, code models.Code) {
	m.rejections.add(rejection{action, auth.RequestFrom(ctx).Network(), code})
}

// rejection is a kind of refusal.
type rejection struct {
	action  models.AuditAction
	network string
	code    models.Code
}

// rejectionCounter are the refusals since the last entries.
type rejectionCounter struct {
	mu     sync.Mutex
	byKind map[rejection]int64
}

func (c *rejectionCounter) add(r rejection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(r, 1)
}

// addLocked counts a kind so many times. The lock is held.
func (c *rejectionCounter) addLocked(r rejection, times int64) {
	if c.byKind == nil {
		c.byKind = map[rejection]int64{}
	}
	if _, known := c.byKind[r]; !known && len(c.byKind) >= maxRejectionKinds {
		r.network = otherNetworks
	}
	c.byKind[r] += times
}

// drain returns what was counted and begins anew.
func (c *rejectionCounter) drain() map[rejection]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	times := c.byKind
	c.byKind = nil
	return times
}

// FlushRejections writes the refusals that were counted, an entry for each kind. What
// cannot be written is counted on.
func (m *Market) FlushRejections(ctx context.Context) error {
	times := m.rejections.drain()
	if len(times) == 0 {
		return nil
	}
	entries := make([]models.AuditEntry, 0, len(times))
	for r, n := range times {
		entries = append(entries, models.AuditEntry{CreatedAt: m.now(), Action: r.action, Address: r.network, Outcome: string(r.code), Count: n})
	}
	slices.SortFunc(entries, func(a, b models.AuditEntry) int {
		return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Outcome, b.Outcome))
	})
	err := m.DB.Write(ctx, func(tx *database.Tx) error { return tx.Create(slices.Clone(entries)).Error })
	if err != nil {
		m.rejections.restore(times)
	}
	return err
}

// restore counts what was taken again, and what came meanwhile as if after it.
func (c *rejectionCounter) restore(times map[rejection]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	meanwhile := c.byKind
	c.byKind = times
	for r, n := range meanwhile {
		c.addLocked(r, n)
	}
}
