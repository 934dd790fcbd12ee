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

// agentRunner implements market.Runner with the executor. It signs requests with the
// webhook secret of the agent.
type agentRunner struct {
	executor *executor.Executor
	webhooks *webhooks.Webhooks
	metrics  *metrics
}

// CheckRunnable returns an error if this server cannot run the agent.
func (r *agentRunner) CheckRunnable(agent *models.Agent) error {
	return r.executor.CheckRunnable(executorAgent(agent))
}

// Run runs the agent, and records metrics and a trace span.
func (r *agentRunner) Run(ctx context.Context, agent *models.Agent, task *models.Task, options market.RunOptions) (outcome market.RunResult, err error) {
	kind, start := executionKind(agent), time.Now()
	r.metrics.executionsRunning[kind].Inc()
	ctx, span := tracing.StartClient(ctx, "run "+kind) // the trace is not propagated to third parties
	span.SetString("agentmarket.task", task.ID)
	defer func() {
		r.metrics.executionsRunning[kind].Dec()
		r.metrics.observeExecution(kind, outcome, err, time.Since(start))
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
		Deadline: options.Deadline, Background: options.Background, OnText: options.OnText,
	})
	return market.RunResult(out), err
}

func executorAgent(agent *models.Agent) executor.Agent {
	return executor.Agent{ID: agent.ID, EndpointURL: agent.EndpointURL, SystemPrompt: agent.SystemPrompt}
}
