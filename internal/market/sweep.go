package market

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

const (
	// sweepPageSize is how many tasks one pass over the store ends at most.
	sweepPageSize = 200
	// sweepTimeout and pruneTimeout are how long Run sweeps and prunes at once. What is
	// left is there next time.
	sweepTimeout, pruneTimeout = 30 * time.Second, time.Minute
	// sweepsPerPrune is how many sweeps there are to one pruning.
	sweepsPerPrune = 10
)

// Sweep ends what time has ended: it refunds open and lapsed tasks whose offer
// is over, and direct hires whose deadline has come or whose process is gone. Nothing
// depends on when it runs: until then every verb goes by the clock. Several
// processes may sweep at once.
//
// A task that cannot be ended holds up no other: the error names it, and it is tried
// again after a minute, when all others have had their turn.
func (m *Market) Sweep(ctx context.Context) error {
	s := &sweep{market: m, lastTried: m.sweepRetries.load(), failed: map[string]models.Time{}}
	err := errors.Join(s.endOverdue(ctx), s.failOrphaned(ctx))
	for _, task := range s.deferred {
		s.tryEnd(ctx, task)
	}
	m.sweepRetries.save(ctx, s)
	return errors.Join(err, s.err())
}

// endOverdue ends the tasks whose time has come, page by page in the order of their times:
// what stays is not met again.
func (s *sweep) endOverdue(ctx context.Context) error {
	now, after := s.market.now(), dueTask{}
	for {
		var page []dueTask
		err := s.market.deps.DB.Read(ctx).Raw(`
			SELECT id, origin, open_until AS due FROM tasks WHERE status = 'open' AND open_until <= ? AND (open_until, id) > (?, ?)
			UNION ALL
			SELECT id, origin, lease_until FROM tasks WHERE status = 'assigned' AND lease_until <= ? AND (lease_until, id) > (?, ?)
				AND (origin = 'direct' OR lapses + 1 >= ? OR open_until <= ?)
			ORDER BY due, id LIMIT ?`,
			now, after.Due, after.ID, now, after.Due, after.ID, models.MaxLapses, now, sweepPageSize).Scan(&page).Error
		if err != nil {
			return err
		}
		for _, task := range page {
			s.process(ctx, task)
		}
		if len(page) < sweepPageSize || ctx.Err() != nil {
			return ctx.Err()
		}
		after = page[len(page)-1]
	}
}

// failOrphaned ends the hires that a process that is gone left running, and those that this one
// has lost. A process that only seemed to be gone finds its hire ended and pays nobody.
func (s *sweep) failOrphaned(ctx context.Context) error {
	var ids []string
	err := s.market.deps.DB.Read(ctx).Raw(`SELECT id FROM tasks WHERE status = 'assigned' AND origin = 'direct'
		AND replica > '' AND replica NOT IN (SELECT id FROM replicas)`).Scan(&ids).Error
	if err != nil {
		return err
	}
	lost, err := s.market.findLostHires(ctx)
	if err != nil {
		return err
	}
	for _, id := range append(ids, lost...) {
		s.process(ctx, dueTask{ID: id, orphaned: true})
	}
	return nil
}

// minLostAge is how old a hire of this process is at least when it is found that
// nobody runs it.
const minLostAge = time.Minute

// findLostHires returns the direct hires that this process wrote but does not run: it was
// told of a failure, and the store had kept them after all.
func (m *Market) findLostHires(ctx context.Context) (ids []string, err error) {
	var own []string
	err = m.deps.DB.Read(ctx).Raw("SELECT id FROM tasks WHERE status = 'assigned' AND origin = 'direct' AND replica = ? AND created_at <= ?",
		m.deps.DB.ReplicaID(), m.now().Add(-minLostAge)).Scan(&own).Error
	for _, id := range own {
		if !m.executions.isRunning(id) {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// RunMaintenance sweeps at every interval until ctx ends, and prunes beside it.
func (m *Market) RunMaintenance(ctx context.Context, interval time.Duration) {
	var group sync.WaitGroup
	group.Go(func() { m.runEvery(ctx, sweepsPerPrune*interval, pruneTimeout, "prune", m.Prune) })
	m.runEvery(ctx, interval, sweepTimeout, "sweep", m.Sweep)
	group.Wait()
}

// runEvery does something at every interval until ctx ends. It gives up when that
// takes long: a connection to the store can die without a sign.
func (m *Market) runEvery(ctx context.Context, interval, most time.Duration, name string, do func(context.Context) error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, most)
		err := do(limited)
		cancel()
		if err != nil && ctx.Err() == nil {
			m.deps.Logger.ErrorContext(ctx, "cannot tidy up", slog.String("part", name), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// endTask ends one task as the clock says, or because nobody runs it, and reports whether
// that was so still.
func (m *Market) endTask(tx *database.Tx, due dueTask) (ended bool, err error) {
	switch {
	case due.orphaned:
		stopped := models.Errorf(models.ExecutionFailed, "the server stopped while the agent ran; the budget was given back")
		return m.failHire(tx, due.ID, stopped, func(task *models.Task) bool { return task.Replica != nil })
	case due.Origin == models.Direct:
		return m.failHire(tx, due.ID, errDeadlineExceeded(), func(task *models.Task) bool { return task.Lapsed(m.now()) })
	}
	task, err := lockTask(tx, due.ID)
	if err != nil || task.Status.Ended() || !task.StatusAt(m.now()).Ended() {
		return false, err
	}
	_, err = m.settleRefunded(tx, task, models.Expired, models.TaskExpired)
	return err == nil, err
}

// failHire settles a direct hire that nobody else will settle, unless somebody has, or
// the agent promised its result meanwhile: then it is no longer due.
func (m *Market) failHire(tx *database.Tx, taskID string, failure *models.Error, due func(*models.Task) bool) (bool, error) {
	c, err := m.idempotency.ForTask(tx, taskID)
	if err != nil {
		return false, err
	}
	task, err := lockTask(tx, taskID)
	if err != nil || task.Status.Ended() || !due(task) {
		return false, err
	}
	_, err = m.settleHire(tx, c, task, "", failure)
	return err == nil, err
}
