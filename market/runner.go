package market

import (
	"context"
	"sync"

	"agentmarket.space/server/models"
)

// Runner runs an agent that was hired.
type Runner interface {
	// Ready refuses an agent that cannot run here.
	Ready(agent *models.Agent) error
	// Run returns the agent's result or its promise of one, or EXECUTION_FAILED or
	// EXECUTION_TIMEOUT.
	Run(ctx context.Context, agent *models.Agent, task *models.Task, terms Terms) (Outcome, error)
}

// Terms are how an agent is to be run.
type Terms struct {
	// Patient is for a hire that nobody waits for: the end of waiting for an answer
	// does not fail it.
	Patient bool
	// Deadline is when a promised result is due at the latest.
	Deadline models.Time
}

// Outcome is what running an agent gave. With Promised the agent completes the
// task itself, with its own key.
type Outcome struct {
	Result   string
	Promised bool
	Tokens   *int64 // what it took of the operator's model, with a failure too; nil when that is not known
}

// runs are the hires that run in this process.
type runs struct {
	group sync.WaitGroup

	mu   sync.Mutex
	live map[string]context.CancelFunc // by task
}

// begin notes a run. It ends with the function that is returned, and ctx with it.
func (r *runs) begin(ctx context.Context, taskID string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	r.group.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil {
		r.live = map[string]context.CancelFunc{}
	}
	r.live[taskID] = cancel
	return ctx, func() {
		cancel()
		r.mu.Lock()
		delete(r.live, taskID)
		r.mu.Unlock()
		r.group.Done()
	}
}

// stop cuts a run off, if it is one of this process.
func (r *runs) stop(taskID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cancel, ok := r.live[taskID]; ok {
		cancel()
	}
}

// Wait returns when no hire runs, or when ctx ends.
func (m *Market) Wait(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		m.running.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
