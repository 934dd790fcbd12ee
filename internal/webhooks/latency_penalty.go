package webhooks

import (
	"maps"
	"time"
)

// An endpoint that keeps requests waiting occupies workers, even if it answers
// some requests quickly. Its penalty is the sum of the time by which its
// requests, running ones included, exceed expectedLatency. Only time reduces the
// penalty. From slowThreshold on the endpoint is slow and its first attempts go
// to the retry queue.
const (
	// expectedLatency is several times the latency of a distant receiver that puts
	// the event into a queue, over a new TLS connection.
	expectedLatency = 2 * time.Second
	// slowThreshold is less than the penalty of one attempt that takes the full
	// 15 s, and more than that of a receiver that is occasionally late.
	slowThreshold = 10 * time.Second
	// penaltyDecay is the number of seconds in which one second of penalty
	// decays: in the long run, a hanging endpoint occupies at most 1/30 of a
	// first-attempt worker.
	penaltyDecay = 30
	// maxPenalty is about the penalty of four hanging requests. After 25 minutes it
	// has decayed to slowThreshold.
	maxPenalty = 60 * time.Second
	// minPenaltiesToPrune is the number of stored penalties below which expired
	// ones are not removed; one takes about 100 bytes.
	minPenaltiesToPrune = 1000
)

// latencyPenalty is the penalty of an endpoint at updatedAt.
type latencyPenalty struct {
	amount    time.Duration
	updatedAt time.Time
}

// remaining returns the penalty that is left at now.
func (p latencyPenalty) remaining(now time.Time) time.Duration {
	return max(p.amount-max(now.Sub(p.updatedAt), 0)/penaltyDecay, 0)
}

// isSlow reports whether the penalty of an agent has reached slowThreshold.
func (l *endpointLimiter) isSlow(agentID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.penalty(agentID) >= slowThreshold
}

// penalty returns the current penalty of an agent, running requests included.
// The caller holds l.mu.
func (l *endpointLimiter) penalty(agentID string) time.Duration {
	now := l.now()
	penalty := l.penalties[agentID].remaining(now)
	if state := l.endpoints[agentID]; state != nil {
		for _, start := range state.startTimes {
			penalty += max(now.Sub(start)-expectedLatency, 0)
		}
	}
	return min(penalty, maxPenalty)
}

// addPenalty adds excess to the penalty of an agent; an excess of zero or less
// changes nothing. The caller holds l.mu.
func (l *endpointLimiter) addPenalty(agentID string, excess time.Duration) {
	if excess <= 0 {
		return
	}
	now := l.now()
	l.penalties[agentID] = latencyPenalty{amount: min(l.penalties[agentID].remaining(now)+excess, maxPenalty), updatedAt: now}
	if len(l.penalties) > l.prunePenaltiesAt {
		maps.DeleteFunc(l.penalties, func(_ string, p latencyPenalty) bool { return p.remaining(now) == 0 })
		l.prunePenaltiesAt = 2*len(l.penalties) + minPenaltiesToPrune
	}
}
