package webhooks

import (
	"context"
	"sync"
	"time"
)

const (
	// maxUnrecorded limits the requests to fast receivers whose outcome is not recorded
	// yet. If the process is killed, these requests are sent again. Without the limit, a
	// kill repeated up to six deliveries. On a busy machine the limit also raises the
	// throughput, because less concurrent work delays the recording less.
	maxUnrecorded = 1
	// fastResponse is the time in which a fast receiver responds. A request that takes
	// longer no longer counts, so that it does not delay requests to others.
	fastResponse = 10 * time.Millisecond
	// maxSlowReceivers limits the agents that are remembered as slow. One takes about 100
	// bytes.
	maxSlowReceivers = 200_000
)

// sendGate lets few requests to fast receivers run at the same time. A receiver is fast
// until it has responded late.
type sendGate struct {
	places chan struct{}

	mu   sync.Mutex
	slow map[string]struct{} // agents whose last response was late
}

func newSendGate() *sendGate {
	return &sendGate{places: make(chan struct{}, maxUnrecorded), slow: map[string]struct{}{}}
}

// enter waits for a place for a request to an agent, unless the agent is slow. The place
// is free again when leave is called, or after fastResponse. enter returns the cause if
// ctx is done first.
func (g *sendGate) enter(ctx context.Context, agentID string) (leave func(), err error) {
	if g.isSlow(agentID) {
		return func() {}, nil
	}
	select {
	case g.places <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	timer := time.AfterFunc(fastResponse, func() { <-g.places })
	return func() {
		if timer.Stop() {
			<-g.places
		}
	}, nil
}

func (g *sendGate) isSlow(agentID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, slow := g.slow[agentID]
	return slow
}

// recordLatency remembers whether an agent is slow.
func (g *sendGate) recordLatency(agentID string, latency time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if latency <= fastResponse {
		delete(g.slow, agentID)
		return
	}
	if len(g.slow) >= maxSlowReceivers {
		for other := range g.slow {
			delete(g.slow, other)
			break
		}
	}
	g.slow[agentID] = struct{}{}
}
