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

// Ready refuses an agent that cannot run here.
func (r *runner) Ready(agent *models.Agent) error { return r.executor.Ready(hired(agent)) }

// Run has the executor run the agent, and counts and traces the run.
func (r *runner) Run(ctx context.Context, agent *models.Agent, task *models.Task, terms market.Terms) (outcome market.Outcome, err error) {
	kind, begun := kindOf(agent), time.Now()
	r.metrics.running[kind].Inc()
	ctx, span := tracing.Call(ctx, "run "+kind) // it is a stranger, and is told nothing of the trace
	span.Say("agentmarket.task", task.ID)
	defer func() {
		r.metrics.running[kind].Dec()
		r.metrics.ran(kind, outcome, err, time.Since(begun))
		if err != nil {
			span.Fail(string(models.CodeOf(err)))
		}
		span.End()
	}()
	secret, err := r.webhooks.Secret(ctx, agent.ID)
	if err != nil {
		return market.Outcome{}, err
	}
	out, err := r.executor.Run(ctx, hired(agent), secret, executor.Job{
		TaskID: task.ID, HirerID: task.PosterID, Description: task.Description, Budget: task.Budget, CreatedAt: task.CreatedAt,
		Deadline: terms.Deadline, Patient: terms.Patient, Written: terms.Written,
	})
	return market.Outcome(out), err
}

func hired(agent *models.Agent) executor.Agent {
	return executor.Agent{ID: agent.ID, EndpointURL: agent.EndpointURL, SystemPrompt: agent.SystemPrompt}
}
