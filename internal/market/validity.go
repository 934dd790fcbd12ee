package market

import (
	"context"
	"sync"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// ValidityWindow names a stretch of time in which every read answers the same: nothing
// is written in it, and no task's time runs out.
type ValidityWindow struct {
	version   int64       // of the store
	exclusive bool        // no other process writes to it
	endsAt    models.Time // when the next task's time runs out
}

// validityWindows keeps the turn of one version of the store: while nothing is written
// the next one is only looked for when it has come.
type validityWindows struct {
	mu       sync.Mutex
	current  ValidityWindow
	loadedAt models.Time // a clock that is set back before it is looked at anew
}

// Cacheable reports whether the epoch is known. Where other processes write to the
// same store, none is.
func (e ValidityWindow) Cacheable() bool { return e.exclusive }

// ValidityWindow returns the present epoch. What is read after the call is of that epoch
// or, when a later call returns another, perhaps of a later one.
func (m *Market) ValidityWindow(ctx context.Context) (ValidityWindow, error) {
	version, alone := m.deps.DB.DataVersion()
	if !alone {
		return ValidityWindow{}, nil
	}
	now := m.now()
	m.windows.mu.Lock()
	defer m.windows.mu.Unlock()
	if kept := m.windows.current; kept.exclusive && kept.version == version && m.windows.loadedAt <= now && now < kept.endsAt {
		return kept, nil
	}
	epoch := ValidityWindow{version: version, exclusive: true}
	err := m.deps.DB.Read(ctx).Raw(`SELECT COALESCE(MIN(turn), ?) FROM (
		SELECT MIN(open_until) AS turn FROM tasks WHERE status = 'open' AND open_until > ?
		UNION ALL SELECT MIN(open_until) FROM tasks WHERE status = 'assigned' AND lease_until <= ? AND open_until > ?
		UNION ALL SELECT MIN(lease_until) FROM tasks WHERE status = 'assigned' AND lease_until > ?) AS turns`,
		maxTime, now, now, now, now).Scan(&epoch.endsAt).Error
	if err != nil {
		return ValidityWindow{}, err
	}
	m.windows.current, m.windows.loadedAt = epoch, now
	return epoch, nil
}

// maxTime is later than any task's time.
const maxTime = models.Time(1 << 62)

// ReadSet is what the reads went by that an answer was made of.
type ReadSet struct {
	window ValidityWindow
	reads  *database.ReadSet
}

// TrackReads returns a context, and what the reads in it go by. They begin in the epoch.
func (m *Market) TrackReads(ctx context.Context, epoch ValidityWindow) (context.Context, *ReadSet) {
	ctx, seen := m.deps.DB.TrackReads(ctx)
	return ctx, &ReadSet{window: epoch, reads: seen}
}

// StillValid reports whether the same reads would find the same now.
func (m *Market) StillValid(ctx context.Context, s *ReadSet) bool {
	if s.reads.ReadsWholeStore() {
		epoch, err := m.ValidityWindow(ctx)
		return err == nil && epoch == s.window
	}
	return s.reads.Unchanged(m.now())
}
