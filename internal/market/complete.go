package market

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// completeInput is the fingerprint of Complete.
type completeInput struct{ TaskID, Result string }

// Complete submits the caller's result and pays the caller 90 % of the budget, rounded
// down; the rest is the platform's fee. A worker with a lapsed lease can still complete
// the task until another agent accepts it. A direct hire ends at its deadline. FORBIDDEN
// for any other agent, CONFLICT if the task is not assigned.
func (m *Market) Complete(ctx context.Context, actor auth.Actor, taskID, result string) (TaskResult, error) {
	if err := checkText("result", result, 1, maxResult); err != nil {
		return TaskResult{}, err
	}
	in := completeInput{taskID, result}
	out, err := idempotency.Run(ctx, m.idempotency, actor.AgentID, "completeTask", in, func(tx *database.Tx) (TaskResult, error) {
		task, err := m.loadAssigned(tx, actor, taskID)
		if err != nil {
			return TaskResult{}, err
		}
		wallet, err := m.settlePaid(tx, &task, result)
		return TaskResult{Task: task, Wallet: wallet}, err
	})
	if errors.Is(err, errDirectHire) {
		return idempotency.Run(ctx, m.idempotency, actor.AgentID, "completeTask", in, func(tx *database.Tx) (TaskResult, error) {
			return m.finishHire(tx, actor, taskID, result, nil)
		})
	}
	return out, err
}

// errDirectHire is returned for a direct hire, before anything is written. The operation
// starts over, because a hire's idempotency key must be locked before its task.
var errDirectHire = errors.New("the task is a direct hire")

// finishHire settles a hire for its agent, with a result or a failure. The agent can
// have promised the result, or its endpoint call can still be running.
func (m *Market) finishHire(tx *database.Tx, actor auth.Actor, taskID, result string, failure error) (TaskResult, error) {
	claim, err := m.idempotency.ForTask(tx, taskID)
	if err != nil {
		return TaskResult{}, err
	}
	task, err := loadTask(tx, actor, taskID)
	if err != nil {
		return TaskResult{}, err
	}
	if *task.WorkerID != actor.AgentID {
		return TaskResult{}, models.Errorf(models.Forbidden, "only the hired agent can do that with task %s", taskID)
	}
	if status := task.StatusAt(m.timestamp()); status != models.Assigned {
		return TaskResult{}, wrongStatusError(&task, status)
	}
	if _, err := m.settleHire(tx, claim, &task, result, failure); err != nil {
		return TaskResult{}, err
	}
	wallet, err := readWallet(tx, actor.AgentID)
	return TaskResult{Task: task, Wallet: wallet}, err
}

// loadAssigned loads a marketplace task for an operation of its worker. A task with a
// lapsed lease still belongs to its worker until another agent accepts it or it expires.
func (m *Market) loadAssigned(tx *database.Tx, actor auth.Actor, taskID string) (models.Task, error) {
	task, err := loadTask(tx, actor, taskID)
	if err != nil {
		return task, err
	}
	if task.Origin == models.OriginDirect {
		return task, fmt.Errorf("%w: %w", errDirectHire, models.Errorf(models.Conflict, "task %s is a direct hire; this operation is for posted tasks", taskID))
	}
	owned := task.WorkerID != nil && *task.WorkerID == actor.AgentID
	status := task.StatusAt(m.timestamp())
	switch {
	case task.Status == models.Assigned && owned && !status.Ended():
		return task, nil
	case status == models.Assigned:
		return task, models.Errorf(models.Forbidden, "another agent works on task %s", taskID)
	default:
		return task, wrongStatusError(&task, status)
	}
}

// settlePaid completes a task, pays its worker and returns the worker's wallet.
func (m *Market) settlePaid(tx *database.Tx, task *models.Task, result string) (models.Wallet, error) {
	now := m.timestamp()
	before := *task
	task.Status, task.Result, task.CompletedAt = models.Completed, &result, &now
	err := transition(tx, &before, models.Completed, map[string]any{"result": result, "completed_at": now})
	if err != nil {
		return models.Wallet{}, err
	}
	err = tx.Model(&models.Agent{}).Where("id = ?", *task.WorkerID).
		Update("completed_count", gorm.Expr("completed_count + 1")).Error
	if err != nil {
		return models.Wallet{}, err
	}
	failpoint.Hit("complete-written")
	if err := m.appendEvent(tx, models.TaskCompleted, task); err != nil {
		return models.Wallet{}, err
	}
	wallet, err := ledger.Pay(tx, now, task)
	if err != nil {
		return models.Wallet{}, err
	}
	failpoint.Hit("complete-paid")
	return wallet, m.appendWalletEvent(tx, *task.WorkerID, ledger.PayoutID(task.ID))
}
