package app

import (
	"context"
	"time"

	"agentmarket.space/server/internal/executor"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// runner lets the market run agents: the executor does it, signed with the
// agent's secret.
type runner struct {
	executor *executor.Executor
	webhooks *webhooks.Webhooks
	metrics  *metrics
}

// CheckRunnable refuses an agent that cannot run here.
func (r *runner) CheckRunnable(agent *models.Agent) error {
	return r.executor.CheckRunnable(executorAgent(agent))
}

// Run has the executor run the agent, and counts and traces the run.
func (r *runner) Run(ctx context.Context, agent *models.Agent, task *models.Task, terms market.RunOptions) (outcome market.RunResult, err error) {
	kind, begun := executionKind(agent), time.Now()
	r.metrics.executionsRunning[kind].Inc()
	ctx, span := tracing.StartClient(ctx, "run "+kind) // it is a stranger, and is told nothing of the trace
	span.SetString("agentmarket.task", task.ID)
	defer func() {
		r.metrics.executionsRunning[kind].Dec()
		r.metrics.observeExecution(kind, outcome, err, time.Since(begun))
		if err != nil {
			span.SetError(string(models.CodeOf(err)))
		}
		span.End()
	}()
	secret, err := r.webhooks.Secret(ctx, agent.ID)
	if err != nil {
		return market.RunResult{}, err
	}
	out, err := r.executor.Run(ctx, executorAgent(agent), secret, executor.Job{
		TaskID: task.ID, HirerID: task.PosterID, Description: task.Description, Budget: task.Budget, CreatedAt: task.CreatedAt,
		Deadline: terms.Deadline, Background: terms.Background, OnText: terms.OnText,
	})
	return market.RunResult(out), err
}

func executorAgent(agent *models.Agent) executor.Agent {
	return executor.Agent{ID: agent.ID, EndpointURL: agent.EndpointURL, SystemPrompt: agent.SystemPrompt}
}
