package webhooks

import (
	"maps"
	"time"
)

// An endpoint that keeps requests waiting holds workers that others could use, also
// when it answers some of them. So what each request takes longer than prompt is owed,
// that of those under way too, and paid back by time alone. From allowance on the
// endpoint is slow, and its first tries wait with the retries.
const (
	// expectedLatency is several times what a receiver takes that puts the event into a queue
	// of its own, far away and over a new connection with TLS.
	expectedLatency = 2 * time.Second
	// slowThreshold is less than what one try owes that takes the whole of 15 s, and more
	// than what a receiver does that is late now and then.
	slowThreshold = 10 * time.Second
	// penaltyDecay is in how many seconds one is paid back: by hanging, an endpoint can
	// have a thirtieth of a worker of the first tries in the long run.
	penaltyDecay = 30
	// maxPenalty is what four requests that hang come to, about: 25 minutes later all
	// is forgiven but allowance.
	maxPenalty = 60 * time.Second
	// minPenaltiesToPrune is how many debts are kept before it is worth a look which of
	// them are paid; one takes about a hundred bytes.
	minPenaltiesToPrune = 1000
)

// latencyPenalty is what an endpoint owed at a time.
type latencyPenalty struct {
	amount    time.Duration
	updatedAt time.Time
}

// remaining is what of it is owed at another time.
func (d latencyPenalty) remaining(now time.Time) time.Duration {
	return max(d.amount-max(now.Sub(d.updatedAt), 0)/penaltyDecay, 0)
}

// isSlow reports whether an agent has kept requests waiting for so long that its first
// tries are to hold up no other's.
func (s *endpointLimiter) isSlow(agentID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.penalty(agentID) >= slowThreshold
}

// penalty is what an agent owes now. The lock is held, as by owe.
func (s *endpointLimiter) penalty(agentID string) time.Duration {
	now := s.now()
	owed := s.penalties[agentID].remaining(now)
	if l := s.endpoints[agentID]; l != nil {
		for _, began := range l.startTimes {
			owed += max(now.Sub(began)-expectedLatency, 0)
		}
	}
	return min(owed, maxPenalty)
}

// addPenalty adds to what an agent owes, if it is anything.
func (s *endpointLimiter) addPenalty(agentID string, over time.Duration) {
	if over <= 0 {
		return
	}
	now := s.now()
	s.penalties[agentID] = latencyPenalty{amount: min(s.penalties[agentID].remaining(now)+over, maxPenalty), updatedAt: now}
	if len(s.penalties) > s.prunePenaltiesAt {
		maps.DeleteFunc(s.penalties, func(_ string, d latencyPenalty) bool { return d.remaining(now) == 0 })
		s.prunePenaltiesAt = 2*len(s.penalties) + minPenaltiesToPrune
	}
}
