package market

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// PostTaskInput describes a task to post.
type PostTaskInput struct {
	Title                string
	Description          string
	Budget               models.Credits
	RequiredCapabilities []string
	OpenForMinutes       *int
	LeaseMinutes         *int
}

// Post creates an open task and holds its budget in the caller's wallet. INVALID_INPUT for
// an invalid field, INSUFFICIENT_CREDITS if the caller cannot pay the budget.
func (m *Market) Post(ctx context.Context, actor auth.Actor, in PostTaskInput) (TaskResult, error) {
	task, err := m.newTask(actor, in)
	if err != nil {
		return TaskResult{}, err
	}
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "postTask", in, func(tx *database.Tx) (TaskResult, error) {
		if err := insertTask(tx, &task); err != nil {
			return TaskResult{}, err
		}
		if err := indexCapabilities(tx, &task); err != nil {
			return TaskResult{}, err
		}
		failpoint.Hit("post-written")
		posted := m.newTaskEvent(models.TaskPosted, &task)
		if err := m.deps.Events.Append(tx, &posted); err != nil {
			return TaskResult{}, err
		}
		wallet, err := ledger.Hold(tx, m.timestamp(), &task)
		if err != nil {
			return TaskResult{}, err
		}
		if err := m.appendWalletEvent(tx, actor.AgentID, ledger.HoldID(task.ID)); err != nil {
			return TaskResult{}, err
		}
		failpoint.Hit("post-held")
		return TaskResult{Task: task, Wallet: wallet}, m.deps.Webhooks.Notify(tx, &posted)
	})
}

// newTask validates the input and returns the task it describes.
func (m *Market) newTask(actor auth.Actor, in PostTaskInput) (models.Task, error) {
	now := m.timestamp()
	task := models.Task{
		ID: newID(), PosterID: actor.AgentID, Title: in.Title, Description: in.Description, Budget: in.Budget,
		Origin: models.OriginMarketplace, Status: models.Open, CreatedAt: now,
	}
	if err := checkText("title", in.Title, 1, maxTitle); err != nil {
		return task, err
	}
	if err := checkText("description", in.Description, 1, maxDescription); err != nil {
		return task, err
	}
	if err := m.checkBudget("budget", in.Budget); err != nil {
		return task, err
	}
	openFor, err := minutesOrDefault("openForMinutes", in.OpenForMinutes, maxOpenFor, m.Settings.OpenFor)
	if err != nil {
		return task, err
	}
	lease, err := minutesOrDefault("leaseMinutes", in.LeaseMinutes, maxLease, m.Settings.Lease)
	if err != nil {
		return task, err
	}
	task.OpenUntil, task.LeaseFor = now.Add(openFor), lease.Microseconds()
	task.Capabilities, err = NormalizeCapabilities("requiredCapabilities", in.RequiredCapabilities, maxRequiredCapabilities)
	return task, err
}

// insertTask inserts a new task.
func insertTask(tx *database.Tx, t *models.Task) error {
	capabilities, err := json.Marshal(t.Capabilities)
	if err != nil {
		return fmt.Errorf("write capabilities: %w", err)
	}
	words := "[]" // a hire is in no list of others
	if t.Origin == models.OriginMarketplace {
		words = database.EncodeWords(t.Title, t.Description)
	}
	return tx.ExecOne(`INSERT INTO tasks (id, poster_id, worker_id, title, description, budget, capabilities, origin, status,
			attempt, lease_for, open_until, lease_until, created_at, accepted_at, replica, tokens, words)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.PosterID, t.WorkerID, t.Title, t.Description, t.Budget, string(capabilities), t.Origin, t.Status,
		t.Attempt, t.LeaseFor, t.OpenUntil, t.LeaseUntil, t.CreatedAt, t.AcceptedAt, t.Replica, t.Tokens, words)
}

// indexCapabilities inserts the rows that the capability filter uses.
func indexCapabilities(tx *database.Tx, task *models.Task) error {
	for _, capability := range task.Capabilities {
		if err := tx.ExecOne("INSERT INTO task_capabilities (capability, task_id) VALUES (?, ?)", capability, task.ID); err != nil {
			return err
		}
	}
	return nil
}

// leaseDuration returns how long a worker of the task has.
func leaseDuration(task *models.Task) time.Duration {
	return time.Duration(task.LeaseFor) * time.Microsecond
}
