package market

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"agentmarket.space/server/database"
	"agentmarket.space/server/models"
)

const (
	// sweepPage is how many tasks one pass over the store ends at most.
	sweepPage = 200
	// sweepTime and pruneTime are how long Run sweeps and prunes at once. What is
	// left is there next time.
	sweepTime, pruneTime = 30 * time.Second, time.Minute
	// pruneEvery is how many sweeps there are to one pruning.
	pruneEvery = 10
)

// Sweep ends what time has ended: it refunds open and lapsed tasks whose offer
// is over, and direct hires whose deadline has come or whose process is gone. Nothing
// depends on when it runs: until then every verb goes by the clock. Several
// processes may sweep at once.
func (m *Market) Sweep(ctx context.Context) error {
	for {
		now := m.now()
		var ending []models.Task
		err := m.DB.Read(ctx).Raw(`
			SELECT id, origin FROM tasks WHERE status = 'open' AND open_until <= ?
			UNION ALL
			SELECT id, origin FROM tasks WHERE status = 'assigned' AND lease_until <= ?
				AND (origin = 'direct' OR lapses + 1 >= ? OR open_until <= ?)
			LIMIT ?`, now, now, models.MaxLapses, now, sweepPage).Scan(&ending).Error
		if err != nil {
			return err
		}
		for _, task := range ending {
			if err := m.DB.Write(ctx, func(tx *database.Tx) error { return m.end(tx, &task) }); err != nil {
				return err
			}
		}
		if len(ending) < sweepPage {
			return m.SettleDead(ctx)
		}
	}
}

// SettleDead refunds the direct hires that a process that is gone left running.
// A process that only seemed to be gone finds its hire ended and pays nobody.
func (m *Market) SettleDead(ctx context.Context) error {
	var ids []string
	err := m.DB.Read(ctx).Raw(`SELECT id FROM tasks WHERE status = 'assigned' AND origin = 'direct'
		AND replica > '' AND replica NOT IN (SELECT id FROM replicas)`).Scan(&ids).Error
	if err != nil {
		return err
	}
	lost, err := m.lost(ctx)
	if err != nil {
		return err
	}
	for _, id := range append(ids, lost...) {
		failed := false
		err := m.DB.Write(ctx, func(tx *database.Tx) (err error) {
			stopped := models.Errorf(models.ExecutionFailed, "the server stopped while the agent ran; the budget was given back")
			failed, err = m.fail(tx, id, stopped, func(task *models.Task) bool { return task.Replica != nil })
			return err
		})
		if err != nil {
			return err
		}
		if failed {
			m.Logger.WarnContext(ctx, "refunded a hire that was cut off", slog.String("task_id", id))
		}
	}
	return nil
}

// lostAfter is how old a hire of this process is at least when it is found that
// nobody runs it.
const lostAfter = time.Minute

// lost returns the direct hires that this process wrote but does not run: it was
// told of a failure, and the store had kept them after all.
func (m *Market) lost(ctx context.Context) (ids []string, err error) {
	var own []string
	err = m.DB.Read(ctx).Raw("SELECT id FROM tasks WHERE status = 'assigned' AND origin = 'direct' AND replica = ? AND created_at <= ?",
		m.DB.Replica(), m.now().Add(-lostAfter)).Scan(&own).Error
	for _, id := range own {
		if !m.running.runs(id) {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// Run sweeps at every interval until ctx ends, and prunes beside it.
func (m *Market) Run(ctx context.Context, interval time.Duration) {
	var group sync.WaitGroup
	group.Go(func() { m.every(ctx, pruneEvery*interval, pruneTime, "prune", m.Prune) })
	m.every(ctx, interval, sweepTime, "sweep", m.Sweep)
	group.Wait()
}

// every does something at every interval until ctx ends. It gives up when that
// takes long: a connection to the store can die without a sign.
func (m *Market) every(ctx context.Context, interval, most time.Duration, name string, do func(context.Context) error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, most)
		err := do(limited)
		cancel()
		if err != nil && ctx.Err() == nil {
			m.Logger.ErrorContext(ctx, "cannot tidy up", slog.String("part", name), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// end ends one task as the clock says, if it still does.
func (m *Market) end(tx *database.Tx, late *models.Task) error {
	if late.Origin == models.Direct {
		_, err := m.fail(tx, late.ID, tooLate(), func(task *models.Task) bool { return task.Lapsed(m.now()) })
		return err
	}
	task, err := lockTask(tx, late.ID)
	if err != nil || task.Status.Ended() || !task.StatusAt(m.now()).Ended() {
		return err
	}
	_, err = m.settleUnpaid(tx, task, models.Expired, models.TaskExpired)
	return err
}

// fail settles a direct hire that nobody else will settle, unless somebody has, or
// the agent promised its result meanwhile: then it is no longer due.
func (m *Market) fail(tx *database.Tx, taskID string, failure *models.Error, due func(*models.Task) bool) (bool, error) {
	c, err := m.claimOf(tx, taskID)
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
