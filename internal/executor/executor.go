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
	// defaultPromptTimeout is how long the SDK's documentation recommends to wait for a
	// message.
	defaultPromptTimeout = 10 * time.Minute
	// maxResponseBytes is how much of an endpoint's answer is read: the longest result
	// in JSON, where a character can take six bytes.
	maxResponseBytes = 2 << 20
)

// Options are how agents are run.
type Options struct {
	Outbound       *outbound.Client
	Timeout        time.Duration // of one run, its turn included unless nobody waits; 60 s when 0
	PromptTimeout  time.Duration // of a prompt that nobody waits for, once it is its turn; 10 min when 0
	MaxConcurrent  int           // how many run at once; 32 when 0
	MarketplaceURL string
	Claude         ClaudeOptions
	Now            func() time.Time
}

// Agent is who runs, and how: at its endpoint, or else with its prompt.
type Agent struct {
	ID           string
	EndpointURL  string
	SystemPrompt string
}

// Job is what it is hired for.
type Job struct {
	TaskID      string
	HirerID     string // who hires
	Description string
	Budget      models.Credits
	CreatedAt   models.Time
	Deadline    models.Time // until when a promise has to be kept
	// Background is for a job that nobody waits for: an endpoint that gives no answer in
	// time may still keep its promise, and a prompt has a time of its own.
	Background bool
	// OnText is told what a prompt has the model write, piece by piece; nil has it
	// answer at once.
	OnText func(piece string)
}

// RunResult is what a run gave: a result, or the promise of one.
type RunResult struct {
	Result string
	// Promised says that the endpoint answered 202, or a patient job not at all: the
	// agent hands in its result itself, until the deadline.
	Promised bool
	// Tokens is what a prompt took of the model, also when that was in vain; nil when
	// it is not known.
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

// CheckRunnable refuses an agent that cannot run here: CONFLICT when it has neither an
// endpoint nor a prompt, UNAVAILABLE when it has a prompt and the server no key
// for Claude.
func (e *Executor) CheckRunnable(agent Agent) error {
	switch {
	case agent.EndpointURL != "":
		return nil
	case agent.SystemPrompt == "":
		return models.Errorf(models.Conflict, "agent %s takes no direct hires: it has neither an endpoint nor a system prompt", agent.ID)
	case e.options.Claude.APIKey == "":
		return models.Errorf(models.Unavailable, "agent %s runs on a system prompt, and this server has no key for the model (ANTHROPIC_API_KEY)", agent.ID)
	default:
		return nil
	}
}

// Run runs the agent and returns its result, or that it promised one. The secret
// signs what is sent to its endpoint; an empty one signs nothing.
// EXECUTION_TIMEOUT when it takes too long, EXECUTION_FAILED for all else that
// goes wrong.
func (e *Executor) Run(ctx context.Context, agent Agent, secret string, job Job) (RunResult, error) {
	waiting, cancel := context.WithCancel(ctx)
	if !job.Background {
		waiting, cancel = context.WithTimeout(ctx, e.options.Timeout)
	}
	defer cancel()
	free, ok := e.limiter.acquire(waiting, job.HirerID, agent.ID)
	if !ok {
		return RunResult{}, models.Errorf(models.ExecutionTimeout, "too many agents are run at once; try again")
	}
	defer free()
	if agent.EndpointURL == "" {
		writing, cutOff := context.WithTimeout(waiting, e.options.PromptTimeout)
		defer cutOff()
		outcome, err := e.runPrompt(writing, agent, job)
		return outcome, timeoutError(writing, err)
	}
	calling, hangUp := context.WithTimeout(waiting, e.options.Timeout)
	defer hangUp()
	outcome, err := e.runEndpoint(calling, agent, secret, job)
	if err != nil && job.Background && ctx.Err() == nil && calling.Err() != nil {
		return RunResult{Promised: true}, nil
	}
	return outcome, timeoutError(calling, err)
}

// timeoutError makes the error of a run that ctx ended one of being too slow.
func timeoutError(ctx context.Context, err error) error {
	if err != nil && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)) {
		return models.Errorf(models.ExecutionTimeout, "the agent did not answer in time")
	}
	return err
}
