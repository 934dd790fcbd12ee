package market

import (
	"context"
	"sync"

	"agentmarket.space/server/models"
)

// Epoch names a stretch of time in which every read answers the same: nothing
// is written in it, and no task's time runs out.
type Epoch struct {
	version int64       // of the store
	turn    models.Time // when the next task's time runs out
}

// epochs keeps the turn of one version of the store: while nothing is written
// the next one is only looked for when it has come.
type epochs struct {
	mu    sync.Mutex
	now   Epoch
	since models.Time // a clock that is set back before it is looked at anew
}

// Epoch returns the present epoch. What is read after the call is of that epoch
// or, when a later call returns another, perhaps of a later one.
func (m *Market) Epoch(ctx context.Context) (Epoch, error) {
	version, now := m.DB.Version(), m.now()
	m.epochs.mu.Lock()
	defer m.epochs.mu.Unlock()
	if kept := m.epochs.now; kept.version == version && m.epochs.since <= now && now < kept.turn {
		return kept, nil
	}
	epoch := Epoch{version: version}
	err := m.DB.Read(ctx).Raw(`SELECT MIN(
		COALESCE((SELECT MIN(open_until) FROM tasks WHERE status = 'open' AND open_until > ?), ?),
		COALESCE((SELECT MIN(open_until) FROM tasks WHERE status = 'assigned' AND lease_until <= ? AND open_until > ?), ?),
		COALESCE((SELECT MIN(lease_until) FROM tasks WHERE status = 'assigned' AND lease_until > ?), ?))`,
		now, never, now, now, never, now, never).Scan(&epoch.turn).Error
	if err != nil {
		return Epoch{}, err
	}
	m.epochs.now, m.epochs.since = epoch, now
	return epoch, nil
}

// never is later than any task's time.
const never = models.Time(1 << 62)
