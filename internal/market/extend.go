package market

import (
	"context"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/models"
)

// extendInput is the fingerprint of Extend.
type extendInput struct {
	TaskID  string
	Minutes *int
}

// Extend extends the lease of a task that is assigned to the caller to leaseMinutes from
// now, or to the task's own lease if leaseMinutes is nil. It never shortens a lease.
// FORBIDDEN for any other agent, CONFLICT if the task is not assigned.
func (m *Market) Extend(ctx context.Context, actor auth.Actor, taskID string, leaseMinutes *int) (models.Task, error) {
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "extendTask", extendInput{taskID, leaseMinutes}, func(tx *database.Tx) (models.Task, error) {
		task, err := m.loadAssigned(tx, actor, taskID)
		if err != nil {
			return task, err
		}
		lease, err := minutesOrDefault("leaseMinutes", leaseMinutes, maxLease, leaseDuration(&task))
		if err != nil {
			return task, err
		}
		before := task
		until := max(m.timestamp().Add(lease), *task.LeaseUntil)
		task.LeaseUntil, task.OpenUntil = &until, max(task.OpenUntil, until.Add(leaseDuration(&task)))
		return task, transition(tx, &before, models.Assigned, map[string]any{"lease_until": until, "open_until": task.OpenUntil})
	})
}
