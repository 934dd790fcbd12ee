package market

import (
	"context"
	"sync"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Epoch names a stretch of time in which every read answers the same: nothing
// is written in it, and no task's time runs out.
type Epoch struct {
	version int64       // of the store
	alone   bool        // no other process writes to it
	turn    models.Time // when the next task's time runs out
}

// epochs keeps the turn of one version of the store: while nothing is written
// the next one is only looked for when it has come.
type epochs struct {
	mu    sync.Mutex
	now   Epoch
	since models.Time // a clock that is set back before it is looked at anew
}

// Known reports whether the epoch is known. Where other processes write to the
// same store, none is.
func (e Epoch) Known() bool { return e.alone }

// Epoch returns the present epoch. What is read after the call is of that epoch
// or, when a later call returns another, perhaps of a later one.
func (m *Market) Epoch(ctx context.Context) (Epoch, error) {
	version, alone := m.DB.Version()
	if !alone {
		return Epoch{}, nil
	}
	now := m.now()
	m.epochs.mu.Lock()
	defer m.epochs.mu.Unlock()
	if kept := m.epochs.now; kept.alone && kept.version == version && m.epochs.since <= now && now < kept.turn {
		return kept, nil
	}
	epoch := Epoch{version: version, alone: true}
	err := m.DB.Read(ctx).Raw(`SELECT COALESCE(MIN(turn), ?) FROM (
		SELECT MIN(open_until) AS turn FROM tasks WHERE status = 'open' AND open_until > ?
		UNION ALL SELECT MIN(open_until) FROM tasks WHERE status = 'assigned' AND lease_until <= ? AND open_until > ?
		UNION ALL SELECT MIN(lease_until) FROM tasks WHERE status = 'assigned' AND lease_until > ?) AS turns`,
		never, now, now, now, now).Scan(&epoch.turn).Error
	if err != nil {
		return Epoch{}, err
	}
	m.epochs.now, m.epochs.since = epoch, now
	return epoch, nil
}

// never is later than any task's time.
const never = models.Time(1 << 62)

// Sight is what the reads went by that an answer was made of.
type Sight struct {
	epoch Epoch
	seen  *database.Seen
}

// Look returns a context, and what the reads in it go by. They begin in the epoch.
func (m *Market) Look(ctx context.Context, epoch Epoch) (context.Context, *Sight) {
	ctx, seen := m.DB.Watch(ctx)
	return ctx, &Sight{epoch: epoch, seen: seen}
}

// Lasts reports whether the same reads would find the same now.
func (m *Market) Lasts(ctx context.Context, s *Sight) bool {
	if s.seen.All() {
		epoch, err := m.Epoch(ctx)
		return err == nil && epoch == s.epoch
	}
	return s.seen.Stands(m.now())
}
