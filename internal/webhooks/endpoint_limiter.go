package webhooks

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// maxPerEndpoint is how many requests to one agent are under way at most, and
	// maxLowPriority how many of them for what is later: one is left for what is fresh,
	// however many retries hang.
	maxPerEndpoint = 4
	maxLowPriority = 3
	// maxWaiting is how many more wait for one of them to end, half of them at most
	// for what is later, and slotWaitTimeout how long. Without it an endpoint that answers at once would get four
	// requests each time the job queue is looked at.
	maxWaiting      = 28
	slotWaitTimeout = fetchPollInterval
)

// endpointLimiter counts what is under way to each agent, and remembers whose requests took long.
type endpointLimiter struct {
	now              func() time.Time
	mu               sync.Mutex
	endpoints        map[string]*endpointState
	penalties        map[string]latencyPenalty
	prunePenaltiesAt int // debts there may be before those that are paid are forgotten
}

func newEndpointLimiter(now func() time.Time) endpointLimiter {
	return endpointLimiter{now: now, endpoints: map[string]*endpointState{}, penalties: map[string]latencyPenalty{}}
}

// slot is a request that is under way to an agent.
type slot struct {
	agentID     string
	lowPriority bool
	startedAt   time.Time
}

// endpointState is what is under way to one agent.
type endpointState struct {
	slots            chan struct{} // has room for maxPerEndpoint
	startTimes       []time.Time   // when each of them began
	lowPrioritySlots chan struct{} // those for what is later among them; has room for maxLowPriority
	count            int           // under way or waiting
	lowPriorityCount int           // those for what is later among them
	lastProgress     time.Time     // when a request last ended
}

// acquire reserves a slot, for which it may wait a moment, and reports whether it
// got one. When not, it tells how long the agent has made no progress. Later is for
// what is later. Nobody waits for an agent that is slow.
func (s *endpointLimiter) acquire(ctx context.Context, agentID string, later bool) (taken slot, stalled time.Duration, ok bool) {
	l := s.register(agentID, later)
	if l == nil {
		return slot{}, s.stalledFor(agentID), false
	}
	limited, cancel := context.WithTimeout(ctx, slotWaitTimeout)
	defer cancel()
	if s.isSlow(agentID) {
		cancel()
	}
	if l.acquire(limited, later) {
		return s.recordStart(l, agentID, later), 0, true
	}
	stalled = s.stalledFor(agentID)
	s.unregister(agentID, later)
	return slot{}, stalled, false
}

// recordStart notes when a request begins.
func (s *endpointLimiter) recordStart(l *endpointState, agentID string, later bool) slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := slot{agentID: agentID, lowPriority: later, startedAt: s.now()}
	l.startTimes = append(l.startTimes, taken.startedAt)
	return taken
}

// acquire waits for room until ctx ends, and reports whether there was some.
func (l *endpointState) acquire(ctx context.Context, later bool) bool {
	if later && !acquireSlot(ctx, l.lowPrioritySlots) {
		return false
	}
	if acquireSlot(ctx, l.slots) {
		return true
	}
	if later {
		<-l.lowPrioritySlots
	}
	return false
}

// acquireSlot takes room that there is, however little time is left, or waits for some.
func acquireSlot(ctx context.Context, room chan<- struct{}) bool {
	select {
	case room <- struct{}{}:
		return true
	default:
	}
	select {
	case room <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// register joins an agent's lane; nil when there is no room.
func (s *endpointLimiter) register(agentID string, later bool) *endpointState {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.endpoints[agentID]
	if l == nil {
		l = &endpointState{slots: make(chan struct{}, maxPerEndpoint), lowPrioritySlots: make(chan struct{}, maxLowPriority), lastProgress: s.now()}
		s.endpoints[agentID] = l
	}
	if l.count == maxPerEndpoint+maxWaiting || later && l.lowPriorityCount == maxLowPriority+maxWaiting/2 {
		return nil
	}
	l.count++
	if later {
		l.lowPriorityCount++
	}
	return l
}

func (s *endpointLimiter) unregister(agentID string, later bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.endpoints[agentID]
	l.count--
	if later {
		l.lowPriorityCount--
	}
	if l.count == 0 {
		delete(s.endpoints, agentID)
	}
}

// stalledFor is how long an agent has made no progress. What one that is slow owes counts
// as such.
func (s *endpointLimiter) stalledFor(agentID string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	stalled := time.Duration(0)
	if l := s.endpoints[agentID]; l != nil {
		stalled = s.now().Sub(l.lastProgress)
	}
	if owed := s.penalty(agentID); owed >= slowThreshold {
		stalled = max(stalled, owed)
	}
	return stalled
}

// isCrowded reports whether so many wait for an agent that more would only be sent
// away again.
func (s *endpointLimiter) isCrowded(agentID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.endpoints[agentID]
	return l != nil && l.count >= maxPerEndpoint+maxWaiting/2
}

// release gives a slot back.
func (s *endpointLimiter) release(taken slot) {
	s.mu.Lock()
	l := s.endpoints[taken.agentID]
	l.lastProgress = s.now()
	if i := slices.Index(l.startTimes, taken.startedAt); i >= 0 {
		l.startTimes = slices.Delete(l.startTimes, i, i+1)
	}
	s.addPenalty(taken.agentID, l.lastProgress.Sub(taken.startedAt)-expectedLatency)
	s.mu.Unlock()
	<-l.slots
	if taken.lowPriority {
		<-l.lowPrioritySlots
	}
	s.unregister(taken.agentID, taken.lowPriority)
}
