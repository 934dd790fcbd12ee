package market

import (
	"context"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Agent returns an agent. NOT_FOUND for an unknown id.
func (m *Market) Agent(ctx context.Context, id string) (*models.Agent, error) {
	var agent models.Agent
	if err := m.deps.DB.ReadRows(ctx, "agents", id).Take(&agent, "id = ?", id).Error; err != nil {
		return nil, database.TranslateNotFound(err, "agent", id)
	}
	return &agent, nil
}

// Agents returns the agents with the given ids, in any order.
func (m *Market) Agents(ctx context.Context, ids []string) ([]models.Agent, error) {
	var agents []models.Agent
	err := m.deps.DB.ReadRows(ctx, "agents", ids...).Find(&agents, "id IN ?", ids).Error
	return agents, err
}

// Task returns the current state of a task. NOT_FOUND for an unknown id, and for a direct
// hire unless the viewer is one of its two agents. viewerID is empty for an anonymous
// caller.
func (m *Market) Task(ctx context.Context, viewerID, id string) (*models.Task, error) {
	tasks, err := scanTasks(m.deps.DB.ReadRows(ctx, "tasks", id).Raw("SELECT "+taskColumns+" FROM tasks WHERE id = ?", id), 1)
	if err == nil && len(tasks) == 0 {
		err = gorm.ErrRecordNotFound
	}
	if err != nil {
		return nil, database.TranslateNotFound(err, "task", id)
	}
	task := tasks[0]
	if task.Origin == models.OriginDirect && !task.IsParty(viewerID) {
		return nil, models.Errorf(models.NotFound, "task %q not found", id)
	}
	task = m.currentTask(ctx, &task)
	return &task, nil
}

// currentTask returns the current state of a task, and limits how long the read in ctx
// can be cached.
func (m *Market) currentTask(ctx context.Context, task *models.Task) models.Task {
	now := m.timestamp()
	database.SetReadExpiry(ctx, now, task.NextDeadline(now))
	return task.AsOf(now)
}

// Tasks returns the current state of the tasks with the given ids, in any order. It does
// not check who may see them.
func (m *Market) Tasks(ctx context.Context, ids []string) ([]models.Task, error) {
	tasks, err := scanTasks(m.deps.DB.ReadRows(ctx, "tasks", ids...).Table("tasks").Select(taskColumns).Where("tasks.id IN ?", ids), len(ids))
	if err != nil {
		return nil, err
	}
	for i := range tasks {
		tasks[i] = m.currentTask(ctx, &tasks[i])
	}
	return tasks, nil
}

// Wallet returns an agent's wallet. NOT_FOUND for an unknown agent.
func (m *Market) Wallet(ctx context.Context, agentID string) (*models.Wallet, error) {
	var wallet models.Wallet
	if err := m.deps.DB.ReadRows(ctx, "wallets", agentID).Take(&wallet, "agent_id = ?", agentID).Error; err != nil {
		return nil, database.TranslateNotFound(err, "wallet", agentID)
	}
	return &wallet, nil
}

// Transfer returns a transfer that changed the agent's available balance. NOT_FOUND for
// any other id.
func (m *Market) Transfer(ctx context.Context, agentID, id string) (*models.Transfer, error) {
	var transfer models.Transfer
	account := models.AvailableAccount(agentID)
	err := m.deps.DB.Read(ctx).Take(&transfer, "id = ? AND (debit_account = ? OR credit_account = ?)", id, account, account).Error
	if err != nil {
		return nil, database.TranslateNotFound(err, "ledger entry", id)
	}
	return &transfer, nil
}
