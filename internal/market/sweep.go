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
	// sweepPageSize is how many tasks a sweep reads at once.
	sweepPageSize = 200
	// sweepTimeout and pruneTimeout bound one sweep and one prune. The next one continues
	// with the rest.
	sweepTimeout, pruneTimeout = 30 * time.Second, time.Minute
	// sweepsPerPrune is the number of sweep intervals between two prunes.
	sweepsPerPrune = 10
	// minLostAge is the age at which a hire of this process that is not running here
	// counts as lost.
	minLostAge = time.Minute
)

// Sweep ends the tasks whose time is over: it refunds open and lapsed tasks after their
// offer, and direct hires after their deadline or when the process that ran them has
// stopped. No operation relies on that, because all of them go by the clock. A sweep also
// indexes the rows that a process of an older version wrote; until then, searches do not
// find them. Several processes may sweep at the same time.
//
// A task that cannot be ended does not delay any other. The error names it, and a sweep
// tries it again after a minute, after all other tasks.
func (m *Market) Sweep(ctx context.Context) error {
	s := &sweep{market: m, found: map[string]bool{}}
	err := errors.Join(s.endOverdue(ctx), s.failOrphaned(ctx), m.deps.DB.FillWords(ctx))
	for _, task := range s.retries {
		s.tryEnd(ctx, task)
	}
	if err == nil && ctx.Err() == nil {
		m.sweepRetries.retain(s.found)
	}
	return errors.Join(err, s.errs.err())
}

// sweep is one run of [Market.Sweep].
type sweep struct {
	market  *Market
	retries []dueTask       // tasks of earlier failures, tried last
	found   map[string]bool // ids of all tasks of earlier failures
	errs    sweepErrors
}

// dueTask is a task to end.
type dueTask struct {
	ID       string
	Origin   models.Origin
	Due      models.Time
	orphaned bool // a hire that no process runs any more
}

// endOverdue ends the tasks whose time is over, page by page in the order of their due
// times, so that no page repeats a task that could not be ended.
func (s *sweep) endOverdue(ctx context.Context) error {
	now, after := s.market.timestamp(), dueTask{}
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
			s.end(ctx, task)
		}
		if len(page) < sweepPageSize || ctx.Err() != nil {
			return ctx.Err()
		}
		after = page[len(page)-1]
	}
}

// failOrphaned fails the hires of stopped processes, and the lost hires of this process:
// those that it does not run although it wrote them, because the database kept a commit
// that was reported as failed. A process that was only taken for stopped finds its hire
// ended and pays nobody.
func (s *sweep) failOrphaned(ctx context.Context) error {
	m := s.market
	var hires []struct {
		ID    string
		Alive bool // its process
	}
	err := m.deps.DB.Read(ctx).Raw(`SELECT id, alive FROM (
			SELECT id, replica, created_at, replica IN (SELECT id FROM replicas) AS alive FROM tasks
			WHERE status = 'assigned' AND origin = 'direct' AND replica > ''
		) AS hires WHERE NOT alive OR replica = ? AND created_at <= ?`,
		m.deps.DB.ReplicaID(), m.timestamp().Add(-minLostAge)).Scan(&hires).Error
	if err != nil {
		return err
	}
	for _, hire := range hires {
		if !hire.Alive || !m.executions.isRunning(hire.ID) {
			s.end(ctx, dueTask{ID: hire.ID, orphaned: true})
		}
	}
	return nil
}

// end ends a task. A task of an earlier failure waits until all others have been tried.
func (s *sweep) end(ctx context.Context, task dueTask) {
	if s.market.sweepRetries.has(task.ID) {
		s.found[task.ID] = true
		s.retries = append(s.retries, task)
		return
	}
	s.tryEnd(ctx, task)
}

// tryEnd ends a task, unless it is postponed.
func (s *sweep) tryEnd(ctx context.Context, task dueTask) {
	m := s.market
	if ctx.Err() != nil || m.sweepRetries.isPostponed(task.ID, m.timestamp()) {
		return
	}
	ended := false
	err := m.deps.DB.Write(ctx, func(tx *database.Tx) (err error) {
		ended, err = m.endTask(tx, task)
		return err
	})
	switch {
	case err == nil && ended && task.orphaned:
		m.deps.Logger.WarnContext(ctx, "refunded an orphaned hire", slog.String("task_id", task.ID))
	case err != nil && ctx.Err() == nil:
		m.sweepRetries.postpone(task.ID, m.timestamp())
		s.found[task.ID] = true
		s.errs.add(task.ID, err)
	}
}

// RunMaintenance sweeps at every interval, and prunes at every tenth, until ctx is done.
func (m *Market) RunMaintenance(ctx context.Context, interval time.Duration) {
	var group sync.WaitGroup
	group.Go(func() { m.runEvery(ctx, sweepsPerPrune*interval, pruneTimeout, "prune", m.Prune) })
	m.runEvery(ctx, interval, sweepTimeout, "sweep", m.Sweep)
	group.Wait()
}

// runEvery calls fn at every interval until ctx is done, each time with a timeout: a
// connection to the database can hang without an error.
func (m *Market) runEvery(ctx context.Context, interval, timeout time.Duration, name string, fn func(context.Context) error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, timeout)
		err := fn(limited)
		cancel()
		if err != nil && ctx.Err() == nil && !errors.Is(err, database.ErrFileLost) { // the store has logged that
			m.deps.Logger.ErrorContext(ctx, "maintenance failed", slog.String("part", name), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// endTask ends a task that is overdue or orphaned, and reports whether it still was.
func (m *Market) endTask(tx *database.Tx, due dueTask) (ended bool, err error) {
	switch {
	case due.orphaned:
		stopped := models.Errorf(models.ExecutionFailed, "the server stopped while the agent ran; the budget was refunded")
		return m.failHire(tx, due.ID, stopped, func(task *models.Task) bool { return task.Replica != nil })
	case due.Origin == models.OriginDirect:
		return m.failHire(tx, due.ID, deadlineExceededError(), func(task *models.Task) bool { return task.Lapsed(m.timestamp()) })
	}
	task, err := lockTask(tx, due.ID)
	if err != nil || task.Status.Ended() || !task.StatusAt(m.timestamp()).Ended() {
		return false, err
	}
	_, err = m.settleRefunded(tx, task, models.Expired, models.TaskExpired)
	return err == nil, err
}

// failHire settles a direct hire as failed if it has not ended and is still due: its
// agent may have promised a result since the sweep read it.
func (m *Market) failHire(tx *database.Tx, taskID string, failure *models.Error, due func(*models.Task) bool) (bool, error) {
	claim, err := m.idempotency.ForTask(tx, taskID)
	if err != nil {
		return false, err
	}
	task, err := lockTask(tx, taskID)
	if err != nil || task.Status.Ended() || !due(task) {
		return false, err
	}
	_, err = m.settleHire(tx, claim, task, "", failure)
	return err == nil, err
}
