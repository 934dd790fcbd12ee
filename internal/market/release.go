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

// Release gives up a task that is assigned to the caller. The task is open again, and its
// budget is held in the poster's wallet. A released hire fails and its budget is
// refunded. FORBIDDEN for any other agent, CONFLICT if the task is not assigned.
func (m *Market) Release(ctx context.Context, actor auth.Actor, taskID string) (TaskResult, error) {
	out, err := idempotency.Run(ctx, m.idempotency, actor.AgentID, "releaseTask", taskID, func(tx *database.Tx) (TaskResult, error) {
		task, err := m.loadAssigned(tx, actor, taskID)
		if err != nil {
			return TaskResult{}, err
		}
		before := task
		err = transition(tx, &before, models.Open, map[string]any{"worker_id": nil, "lease_until": nil, "accepted_at": nil})
		if err != nil {
			return TaskResult{}, err
		}
		if err := m.appendEvent(tx, models.TaskReleased, &task); err != nil {
			return TaskResult{}, err
		}
		task.Status, task.WorkerID, task.LeaseUntil, task.AcceptedAt = models.Open, nil, nil, nil
		if err := ledger.Reopen(tx, m.timestamp(), &task); err != nil {
			return TaskResult{}, err
		}
		wallet, err := readWallet(tx, actor.AgentID)
		return TaskResult{Task: task, Wallet: wallet}, err
	})
	if errors.Is(err, errDirectHire) {
		return idempotency.Run(ctx, m.idempotency, actor.AgentID, "releaseTask", taskID, func(tx *database.Tx) (TaskResult, error) {
			return m.finishHire(tx, actor, taskID, "", noResultError())
		})
	}
	return out, err
}
