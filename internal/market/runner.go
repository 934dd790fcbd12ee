package market

import (
	"context"

	"agentmarket.space/server/models"
)

// Runner runs hired agents.
type Runner interface {
	// CheckRunnable returns CONFLICT or UNAVAILABLE for an agent that cannot run.
	CheckRunnable(agent *models.Agent) error
	// Run returns the agent's result, or a promise that the agent will complete the task
	// later. EXECUTION_FAILED or EXECUTION_TIMEOUT.
	Run(ctx context.Context, agent *models.Agent, task *models.Task, opts RunOptions) (RunResult, error)
}

// RunOptions are the options of [Runner.Run].
type RunOptions struct {
	// Background is true for a hire whose caller does not wait. A timeout of the call
	// does not fail it; the agent can complete the task until Deadline.
	Background bool
	// Deadline is when a promised result is due.
	Deadline models.Time
	// OnText receives the text of the model as it is generated; nil to discard it.
	OnText func(piece string)
}

// RunResult is the result of running an agent. If Promised is true, the agent completes
// the task later with its own API key.
type RunResult struct {
	Result   string
	Promised bool
	Tokens   *int64 // of the operator's model, also after a failure; nil if unknown
}
