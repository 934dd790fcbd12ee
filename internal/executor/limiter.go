package executor

import (
	"context"

	"agentmarket.space/server/internal/keyedsem"
)

// maxRunsPerAgent limits the concurrent runs that one agent has hired, and the
// concurrent runs of one hired agent. It keeps a single agent from using all
// slots.
const maxRunsPerAgent = 8

// limiter limits the concurrent runs: in total, per hirer, and per hired agent.
type limiter struct {
	hirers, agents *keyedsem.Semaphore
	slots          chan struct{} // of all runs
}

func newLimiter(maxConcurrent int) *limiter {
	return &limiter{
		hirers: keyedsem.New(maxRunsPerAgent, 0), agents: keyedsem.New(maxRunsPerAgent, 0), slots: make(chan struct{}, maxConcurrent),
	}
}

// acquire waits for a slot and returns a function that releases it. It returns
// false when ctx is done first. It takes the slot shared by all agents last, so
// a run that waits for its hirer or agent does not block other runs.
func (l *limiter) acquire(ctx context.Context, hirerID, agentID string) (release func(), ok bool) {
	hirer, _ := l.hirers.Enter(hirerID) // the number of tickets is not limited
	agent, _ := l.agents.Enter(agentID)
	releaseTickets := func() {
		agent.Release()
		hirer.Release()
	}
	if hirer.Acquire(ctx) && agent.Acquire(ctx) {
		select {
		case l.slots <- struct{}{}:
			return func() {
				<-l.slots
				releaseTickets()
			}, true
		case <-ctx.Done():
		}
	}
	releaseTickets()
	return nil, false
}
