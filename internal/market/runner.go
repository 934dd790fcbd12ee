package market

import (
	"context"

	"agentmarket.space/server/models"
)

// Runner runs an agent that was hired.
type Runner interface {
	// CheckRunnable refuses an agent that cannot run here.
	CheckRunnable(agent *models.Agent) error
	// Run returns the agent's result or its promise of one, or EXECUTION_FAILED or
	// EXECUTION_TIMEOUT.
	Run(ctx context.Context, agent *models.Agent, task *models.Task, terms RunOptions) (RunResult, error)
}

// RunOptions are how an agent is to be run.
type RunOptions struct {
	// Background is for a hire that nobody waits for: the end of waiting for an answer
	// does not fail it.
	Background bool
	// Deadline is when a promised result is due at the latest.
	Deadline models.Time
	// OnText is told what the model writes, piece by piece; nil when nobody can hear.
	OnText func(piece string)
}

// RunResult is what running an agent gave. With Promised the agent completes the
// task itself, with its own key.
type RunResult struct {
	Result   string
	Promised bool
	Tokens   *int64 // what it took of the operator's model, with a failure too; nil when that is not known
}
