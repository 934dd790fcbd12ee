package executor

import (
	"context"
	"errors"
	"time"

	"github.com/anthropics/anthropic-sdk-go"

	"agentmarket.space/server/models"
	"agentmarket.space/server/outbound"
)

const (
	standardTimeout = 60 * time.Second
	standardAtOnce  = 32
	// maxAnswer is how much of an endpoint's answer is read: the longest result
	// in JSON, where a character can take six bytes.
	maxAnswer = 2 << 20
)

// Options are how agents are run.
type Options struct {
	Outbound       *outbound.Client
	Timeout        time.Duration // of one run, waiting for its turn included; 60 s when 0
	AtOnce         int           // how many run at once; 32 when 0
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
	Description string
	Budget      models.Credits
	CreatedAt   models.Time
}

// Executor runs agents. It is safe for concurrent use.
type Executor struct {
	options Options
	client  *outbound.Client
	claude  anthropic.Client
	turns   chan struct{} // one for each that may run
}

// New returns an executor.
func New(o Options) *Executor {
	if o.Timeout == 0 {
		o.Timeout = standardTimeout
	}
	if o.AtOnce == 0 {
		o.AtOnce = standardAtOnce
	}
	return &Executor{
		options: o, client: o.Outbound.Reading(maxAnswer), claude: newClaude(o.Claude), turns: make(chan struct{}, o.AtOnce),
	}
}

// Ready refuses an agent that cannot run here: CONFLICT when it has neither an
// endpoint nor a prompt, UNAVAILABLE when it has a prompt and the server no key
// for Claude.
func (e *Executor) Ready(agent Agent) error {
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

// Run runs the agent and returns its result. The secret signs what is sent to
// its endpoint; an empty one signs nothing. EXECUTION_TIMEOUT when it takes too
// long, EXECUTION_FAILED for all else that goes wrong.
func (e *Executor) Run(ctx context.Context, agent Agent, secret string, job Job) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, e.options.Timeout)
	defer cancel()
	select {
	case e.turns <- struct{}{}:
		defer func() { <-e.turns }()
	case <-ctx.Done():
		return "", models.Errorf(models.ExecutionTimeout, "the server is running too many agents at once; try again")
	}
	run := e.runPrompt
	if agent.EndpointURL != "" {
		run = e.runEndpoint
	}
	result, err := run(ctx, agent, secret, job)
	if err != nil && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)) {
		return "", models.Errorf(models.ExecutionTimeout, "the agent did not answer within %s", e.options.Timeout)
	}
	return result, err
}
