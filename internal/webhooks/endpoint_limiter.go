package webhooks

import (
	"context"
	"slices"
	"sync"
	"time"

	"agentmarket.space/server/internal/keyedsem"
)

const (
	// maxPerEndpoint limits the concurrent requests to one agent. At most
	// maxLowPriority of them are low priority (retries and bulk redeliveries), so
	// one slot stays free for first attempts while retries hang.
	maxPerEndpoint = 4
	maxLowPriority = 3
	// maxWaiting limits the requests to one agent that wait for a slot; at most
	// half of them are low priority. They wait for up to slotWaitTimeout. Without
	// waiting, a fast endpoint would get four requests per poll of the job queue.
	maxWaiting      = 28
	slotWaitTimeout = 250 * time.Millisecond
)

// endpointLimiter limits the concurrent requests to each agent. It also tracks
// their latency; see [latencyPenalty].
type endpointLimiter struct {
	now              func() time.Time
	slots            *keyedsem.Semaphore // of all requests
	lowPrioritySlots *keyedsem.Semaphore // of low-priority requests, in addition to slots

	mu               sync.Mutex
	endpoints        map[string]*endpointState // same keys as slots
	penalties        map[string]latencyPenalty
	prunePenaltiesAt int // number of penalties at which expired ones are removed
}

func newEndpointLimiter(now func() time.Time) endpointLimiter {
	return endpointLimiter{
		now:              now,
		slots:            keyedsem.New(maxPerEndpoint, maxPerEndpoint+maxWaiting),
		lowPrioritySlots: keyedsem.New(maxLowPriority, maxLowPriority+maxWaiting/2),
		endpoints:        map[string]*endpointState{},
		penalties:        map[string]latencyPenalty{},
	}
}

// slot is the place of one request to an agent. It waits until acquire sets
// startedAt.
type slot struct {
	agentID     string
	ticket      *keyedsem.Ticket
	lowPriority *keyedsem.Ticket // nil for a request of normal priority
	startedAt   time.Time
}

// endpointState is the progress of the requests to one agent.
type endpointState struct {
	startTimes   []time.Time // of the running requests
	lastProgress time.Time   // when a request last ended, or the first one entered
}

// acquire waits up to slotWaitTimeout for a slot for a request to an agent and
// reports whether it got one. If not, stalled is the time since the agent last
// made progress. lowPriority is true for retries; one slot is reserved for first
// attempts. acquire does not wait when the agent is slow.
func (l *endpointLimiter) acquire(ctx context.Context, agentID string, lowPriority bool) (s slot, stalled time.Duration, ok bool) {
	s, ok = l.enter(agentID, lowPriority)
	if !ok {
		return slot{}, l.stalledFor(agentID), false
	}
	ctx, cancel := context.WithTimeout(ctx, slotWaitTimeout)
	defer cancel()
	if l.isSlow(agentID) {
		cancel()
	}
	if (s.lowPriority == nil || s.lowPriority.Acquire(ctx)) && s.ticket.Acquire(ctx) {
		l.recordStart(&s)
		return s, 0, true
	}
	stalled = l.stalledFor(agentID)
	l.leave(&s)
	return slot{}, stalled, false
}

// enter returns a place for a request to an agent, or false when too many
// requests to it run or wait.
func (l *endpointLimiter) enter(agentID string, lowPriority bool) (slot, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := slot{agentID: agentID}
	var ok bool
	if s.ticket, ok = l.slots.Enter(agentID); !ok {
		return slot{}, false
	}
	if lowPriority {
		if s.lowPriority, ok = l.lowPrioritySlots.Enter(agentID); !ok {
			s.ticket.Release()
			return slot{}, false
		}
	}
	if l.endpoints[agentID] == nil {
		l.endpoints[agentID] = &endpointState{lastProgress: l.now()}
	}
	return s, true
}

// recordStart records the start of a request.
func (l *endpointLimiter) recordStart(s *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.startedAt = l.now()
	state := l.endpoints[s.agentID]
	state.startTimes = append(state.startTimes, s.startedAt)
}

// restart makes the time of a request begin now: it waited for the server, not for the
// endpoint.
func (l *endpointLimiter) restart(s *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.endpoints[s.agentID]
	if i := slices.Index(state.startTimes, s.startedAt); i >= 0 {
		s.startedAt = l.now()
		state.startTimes[i] = s.startedAt
	}
}

// release frees the slot of a request that has ended.
func (l *endpointLimiter) release(s slot) {
	l.mu.Lock()
	state := l.endpoints[s.agentID]
	state.lastProgress = l.now()
	if i := slices.Index(state.startTimes, s.startedAt); i >= 0 {
		state.startTimes = slices.Delete(state.startTimes, i, i+1)
	}
	l.addPenalty(s.agentID, state.lastProgress.Sub(s.startedAt)-expectedLatency)
	l.mu.Unlock()
	l.leave(&s)
}

// leave frees the tickets of a slot and the state of an agent without requests.
func (l *endpointLimiter) leave(s *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.ticket.Release()
	if s.lowPriority != nil {
		s.lowPriority.Release()
	}
	if l.slots.Tickets(s.agentID) == 0 {
		delete(l.endpoints, s.agentID)
	}
}

// stalledFor returns the time since an agent last made progress. For a slow agent
// it is at least its penalty.
func (l *endpointLimiter) stalledFor(agentID string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	stalled := time.Duration(0)
	if state := l.endpoints[agentID]; state != nil {
		stalled = l.now().Sub(state.lastProgress)
	}
	if penalty := l.penalty(agentID); penalty >= slowThreshold {
		stalled = max(stalled, penalty)
	}
	return stalled
}

// isCrowded reports whether at least half of the waiting places of an agent are
// taken. Further requests may find no place.
func (l *endpointLimiter) isCrowded(agentID string) bool {
	return l.slots.Tickets(agentID) >= maxPerEndpoint+maxWaiting/2
}
