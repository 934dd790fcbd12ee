package executor

import (
	"context"
	"errors"
	"time"

	"github.com/anthropics/anthropic-sdk-go"

	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/models"
)

const (
	defaultTimeout       = 60 * time.Second
	defaultMaxConcurrent = 32
	// defaultPromptTimeout is the timeout that the documentation of the SDK recommends.
	defaultPromptTimeout = 10 * time.Minute
	// maxResponseBytes limits the response of an endpoint. It has room for the longest
	// result as JSON, where a character can take six bytes.
	maxResponseBytes = 2 << 20
)

// Options configures an Executor.
type Options struct {
	Outbound       *outbound.Client
	Timeout        time.Duration // of a run; includes the wait for a slot unless Job.Background; default 60 s
	PromptTimeout  time.Duration // of a background prompt, without the wait for a slot; default 10 min
	MaxConcurrent  int           // concurrent runs; default 32
	MarketplaceURL string
	Claude         ClaudeOptions
	Now            func() time.Time
}

// Agent is an agent to run, at its endpoint if it has one, otherwise with its
// system prompt.
type Agent struct {
	ID           string
	EndpointURL  string
	SystemPrompt string
}

// Job is the work of one run.
type Job struct {
	TaskID      string
	HirerID     string
	Description string
	Budget      models.Credits
	CreatedAt   models.Time
	Deadline    models.Time // of a promised result
	// Background is true when no caller waits for the result. An endpoint that times
	// out then counts as a promise, and a prompt uses PromptTimeout.
	Background bool
	// OnText receives the text of a prompt's result piece by piece. If it is nil, the
	// result is not streamed.
	OnText func(piece string)
}

// RunResult is the result of a run, or the promise of one.
type RunResult struct {
	Result string
	// Promised is true when the endpoint returned 202, or timed out for a background
	// job. The agent submits its result itself before the deadline.
	Promised bool
	// Tokens is the number of model tokens that a prompt used, even if the run
	// failed; nil when unknown.
	Tokens *int64
}

// Executor runs agents. It is safe for concurrent use.
type Executor struct {
	options Options
	client  *outbound.Client
	claude  anthropic.Client
	limiter *limiter
}

// New returns an executor.
func New(o Options) *Executor {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.PromptTimeout == 0 {
		o.PromptTimeout = defaultPromptTimeout
	}
	if o.MaxConcurrent == 0 {
		o.MaxConcurrent = defaultMaxConcurrent
	}
	return &Executor{
		options: o, client: o.Outbound.WithMaxResponse(maxResponseBytes), claude: newClaudeClient(o.Claude), limiter: newLimiter(o.MaxConcurrent),
	}
}

// CheckRunnable returns an error when agent cannot run on this server: CONFLICT when
// it has neither an endpoint nor a system prompt, UNAVAILABLE when it has a system
// prompt and the server has no API key for Claude.
func (e *Executor) CheckRunnable(agent Agent) error {
	switch {
	case agent.EndpointURL != "":
		return nil
	case agent.SystemPrompt == "":
		return models.Errorf(models.Conflict, "agent %s does not accept direct hires: it has neither an endpoint nor a system prompt", agent.ID)
	case e.options.Claude.APIKey == "":
		return models.Errorf(models.Unavailable, "agent %s runs a system prompt, which needs ANTHROPIC_API_KEY to be set on this server", agent.ID)
	default:
		return nil
	}
}

// Run runs agent and returns its result, or the promise of one. Requests to the
// endpoint are signed with secret unless it is empty. Run returns
// EXECUTION_TIMEOUT when the run or the wait for a slot takes too long, and
// EXECUTION_FAILED for other failures.
func (e *Executor) Run(ctx context.Context, agent Agent, secret string, job Job) (RunResult, error) {
	runCtx, cancel := context.WithCancel(ctx)
	if !job.Background {
		runCtx, cancel = context.WithTimeout(ctx, e.options.Timeout)
	}
	defer cancel()
	release, ok := e.limiter.acquire(runCtx, job.HirerID, agent.ID)
	if !ok {
		return RunResult{}, models.Errorf(models.ExecutionTimeout, "too many agents are running; try again later")
	}
	defer release()
	if agent.EndpointURL == "" {
		promptCtx, cancelPrompt := context.WithTimeout(runCtx, e.options.PromptTimeout)
		defer cancelPrompt()
		result, err := e.runPrompt(promptCtx, agent, job)
		return result, timeoutError(promptCtx, err)
	}
	endpointCtx, cancelEndpoint := context.WithTimeout(runCtx, e.options.Timeout)
	defer cancelEndpoint()
	result, err := e.runEndpoint(endpointCtx, agent, secret, job)
	if err != nil && job.Background && ctx.Err() == nil && endpointCtx.Err() != nil {
		return RunResult{Promised: true}, nil
	}
	return result, timeoutError(endpointCtx, err)
}

// timeoutError returns EXECUTION_TIMEOUT if err is the result of a timeout or of ctx
// being done, otherwise err.
func timeoutError(ctx context.Context, err error) error {
	if err != nil && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)) {
		return models.Errorf(models.ExecutionTimeout, "the agent did not respond in time")
	}
	return err
}
