package market

import (
	"context"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// Accept assigns an open task, or one with a lapsed lease, to the caller. The budget moves
// from the poster's held credits to the task's escrow; no available balance changes. Of
// concurrent callers one succeeds. FORBIDDEN for the poster, CONFLICT if the task is not
// open.
func (m *Market) Accept(ctx context.Context, actor auth.Actor, taskID string) (TaskResult, error) {
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "acceptTask", taskID, func(tx *database.Tx) (TaskResult, error) {
		task, err := loadTask(tx, actor, taskID)
		if err != nil {
			return TaskResult{}, err
		}
		if err := m.assignWorker(tx, actor, &task); err != nil {
			return TaskResult{}, err
		}
		wallet, err := readWallet(tx, actor.AgentID)
		return TaskResult{Task: task, Wallet: wallet}, err
	})
}

// assignWorker assigns the task to the actor.
func (m *Market) assignWorker(tx *database.Tx, actor auth.Actor, task *models.Task) error {
	now := m.timestamp()
	if task.PosterID == actor.AgentID {
		return models.Errorf(models.Forbidden, "an agent cannot accept a task that it posted")
	}
	if status := task.StatusAt(now); status != models.Open {
		return wrongStatusError(task, status)
	}
	before := *task
	lapsed := task.Status == models.Assigned
	leaseUntil := now.Add(leaseDuration(task))
	task.Status, task.WorkerID, task.Attempt = models.Assigned, &actor.AgentID, task.Attempt+1
	task.LeaseUntil, task.AcceptedAt = &leaseUntil, &now
	if lapsed {
		task.Lapses++
	}
	// If this lease lapses, the task is open again for at least one more lease.
	task.OpenUntil = max(task.OpenUntil, leaseUntil.Add(leaseDuration(task)))
	err := transition(tx, &before, models.Assigned, map[string]any{
		"worker_id": task.WorkerID, "attempt": task.Attempt, "lapses": task.Lapses,
		"lease_until": task.LeaseUntil, "accepted_at": task.AcceptedAt, "open_until": task.OpenUntil,
	})
	if err != nil {
		return err
	}
	failpoint.Hit("accept-assigned")
	if lapsed { // the former worker gets an event; the budget is already in escrow
		if err := m.appendEvent(tx, models.TaskReleased, &before); err != nil {
			return err
		}
	}
	if err := m.appendEvent(tx, models.TaskAccepted, task); err != nil || lapsed {
		return err
	}
	return ledger.Escrow(tx, now, task)
}
