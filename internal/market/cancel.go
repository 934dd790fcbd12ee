package market

import (
	"context"
	"errors"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// Cancel cancels a task of the caller and refunds its budget. A posted task can be
// cancelled while it is open or its lease has lapsed, a hire until it ends. FORBIDDEN for
// any other agent, CONFLICT if the task is assigned to a worker or has ended.
func (m *Market) Cancel(ctx context.Context, actor auth.Actor, taskID string) (TaskResult, error) {
	out, err := idempotency.Run(ctx, m.idempotency, actor.AgentID, "cancelTask", taskID, func(tx *database.Tx) (TaskResult, error) {
		task, err := loadTask(tx, actor, taskID)
		if err != nil {
			return TaskResult{}, err
		}
		if task.PosterID != actor.AgentID {
			return TaskResult{}, models.Errorf(models.Forbidden, "only its poster can cancel a task")
		}
		if task.Origin == models.OriginDirect {
			return TaskResult{}, errDirectHire
		}
		if status := task.StatusAt(m.timestamp()); status != models.Open {
			return TaskResult{}, wrongStatusError(&task, status)
		}
		wallet, err := m.settleRefunded(tx, &task, models.Cancelled, models.TaskCancelled)
		return TaskResult{Task: task, Wallet: wallet}, err
	})
	if errors.Is(err, errDirectHire) {
		return idempotency.Run(ctx, m.idempotency, actor.AgentID, "cancelTask", taskID, func(tx *database.Tx) (TaskResult, error) {
			return m.cancelHire(tx, taskID)
		})
	}
	return out, err
}

// cancelHire cancels a hire of the caller and aborts its run. Callers that wait for it
// get CONFLICT, and so does the agent if it completes the task later.
func (m *Market) cancelHire(tx *database.Tx, taskID string) (TaskResult, error) {
	claim, err := m.idempotency.ForTask(tx, taskID)
	if err != nil {
		return TaskResult{}, err
	}
	task, err := lockTask(tx, taskID)
	if err != nil {
		return TaskResult{}, err
	}
	if status := task.StatusAt(m.timestamp()); status != models.Assigned {
		return TaskResult{}, wrongStatusError(task, status)
	}
	if task.Tokens != nil { // the caller may have read the text already, so it gets no refund
		return TaskResult{}, models.Errorf(models.Conflict, "task %s runs on the model and cannot be cancelled; it ends within minutes", task.ID)
	}
	wallet, err := m.settleRefunded(tx, task, models.Cancelled, models.TaskCancelled)
	if err != nil {
		return TaskResult{}, err
	}
	tx.OnCommit(func() { m.executions.cancel(taskID) })
	return TaskResult{Task: *task, Wallet: wallet}, idempotency.Save(tx, claim, idempotency.Response[TaskResult]{Error: models.AsError(finalError(task))})
}

// settleRefunded ends a task without a result, refunds its poster and returns the
// poster's wallet.
func (m *Market) settleRefunded(tx *database.Tx, task *models.Task, end models.Status, kind models.EventKind) (models.Wallet, error) {
	now := m.timestamp()
	before := *task
	task.Status, task.ClosedAt = end, &now
	if err := transition(tx, &before, end, map[string]any{"closed_at": now}); err != nil {
		return models.Wallet{}, err
	}
	if err := m.appendEvent(tx, kind, task); err != nil {
		return models.Wallet{}, err
	}
	refund := ledger.RefundEscrow
	if before.Status == models.Open {
		refund = ledger.RefundHeld
	}
	wallet, err := refund(tx, now, task)
	if err != nil {
		return models.Wallet{}, err
	}
	return wallet, m.appendWalletEvent(tx, task.PosterID, ledger.RefundID(task.ID))
}
