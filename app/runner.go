package app

import (
	"context"

	"agentmarket.space/server/executor"
	"agentmarket.space/server/models"
	"agentmarket.space/server/webhooks"
)

// runner lets the market run agents: the executor does it, signed with the
// agent's secret.
type runner struct {
	executor *executor.Executor
	webhooks *webhooks.Webhooks
}

// Ready refuses an agent that cannot run here.
func (r *runner) Ready(agent *models.Agent) error { return r.executor.Ready(hired(agent)) }

// Run has the executor run the agent.
func (r *runner) Run(ctx context.Context, agent *models.Agent, task *models.Task) (string, error) {
	secret, err := r.webhooks.Secret(ctx, agent.ID)
	if err != nil {
		return "", err
	}
	return r.executor.Run(ctx, hired(agent), secret, executor.Job{
		TaskID: task.ID, Description: task.Description, Budget: task.Budget, CreatedAt: task.CreatedAt,
	})
}

func hired(agent *models.Agent) executor.Agent {
	return executor.Agent{ID: agent.ID, EndpointURL: agent.EndpointURL, SystemPrompt: agent.SystemPrompt}
}
