package webhooks

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// perEndpoint is how many requests to one agent are under way at most, and
	// laterAtOnce how many of them for what is later: one is left for what is fresh,
	// however many retries hang.
	perEndpoint = 4
	laterAtOnce = 3
	// waitingRoom is how many more wait for one of them to end, half of them at most
	// for what is later, and waitingTime how long. Without it an endpoint that answers at once would get four
	// requests each time the job queue is looked at.
	waitingRoom = 28
	waitingTime = fetchPoll
)

// slots counts what is under way to each agent, and remembers whose requests took long.
type slots struct {
	now      func() time.Time
	mu       sync.Mutex
	lanes    map[string]*lane
	debts    map[string]debt
	forgetAt int // debts there may be before those that are paid are forgotten
}

func newSlots(now func() time.Time) slots {
	return slots{now: now, lanes: map[string]*lane{}, debts: map[string]debt{}}
}

// slot is a request that is under way to an agent.
type slot struct {
	agentID string
	later   bool
	began   time.Time
}

// lane is what is under way to one agent.
type lane struct {
	requests chan struct{} // has room for perEndpoint
	begun    []time.Time   // when each of them began
	later    chan struct{} // those for what is later among them; has room for laterAtOnce
	users    int           // under way or waiting
	laters   int           // those for what is later among them
	progress time.Time     // when a request last ended
}

// take reserves a slot, for which it may wait a moment, and reports whether it
// got one. When not, it tells how long the agent has made no progress. Later is for
// what is later. Nobody waits for an agent that is slow.
func (s *slots) take(ctx context.Context, agentID string, later bool) (taken slot, stalled time.Duration, ok bool) {
	l := s.enter(agentID, later)
	if l == nil {
		return slot{}, s.stalled(agentID), false
	}
	limited, cancel := context.WithTimeout(ctx, waitingTime)
	defer cancel()
	if s.slow(agentID) {
		cancel()
	}
	if l.reserve(limited, later) {
		return s.begin(l, agentID, later), 0, true
	}
	stalled = s.stalled(agentID)
	s.leave(agentID, later)
	return slot{}, stalled, false
}

// begin notes when a request begins.
func (s *slots) begin(l *lane, agentID string, later bool) slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := slot{agentID: agentID, later: later, began: s.now()}
	l.begun = append(l.begun, taken.began)
	return taken
}

// reserve waits for room until ctx ends, and reports whether there was some.
func (l *lane) reserve(ctx context.Context, later bool) bool {
	if later && !admitted(ctx, l.later) {
		return false
	}
	if admitted(ctx, l.requests) {
		return true
	}
	if later {
		<-l.later
	}
	return false
}

// admitted takes room that there is, however little time is left, or waits for some.
func admitted(ctx context.Context, room chan<- struct{}) bool {
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

// enter joins an agent's lane; nil when there is no room.
func (s *slots) enter(agentID string, later bool) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[agentID]
	if l == nil {
		l = &lane{requests: make(chan struct{}, perEndpoint), later: make(chan struct{}, laterAtOnce), progress: s.now()}
		s.lanes[agentID] = l
	}
	if l.users == perEndpoint+waitingRoom || later && l.laters == laterAtOnce+waitingRoom/2 {
		return nil
	}
	l.users++
	if later {
		l.laters++
	}
	return l
}

func (s *slots) leave(agentID string, later bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[agentID]
	l.users--
	if later {
		l.laters--
	}
	if l.users == 0 {
		delete(s.lanes, agentID)
	}
}

// stalled is how long an agent has made no progress. What one that is slow owes counts
// as such.
func (s *slots) stalled(agentID string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	stalled := time.Duration(0)
	if l := s.lanes[agentID]; l != nil {
		stalled = s.now().Sub(l.progress)
	}
	if owed := s.owed(agentID); owed >= allowance {
		stalled = max(stalled, owed)
	}
	return stalled
}

// crowded reports whether so many wait for an agent that more would only be sent
// away again.
func (s *slots) crowded(agentID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[agentID]
	return l != nil && l.users >= perEndpoint+waitingRoom/2
}

// free gives a slot back.
func (s *slots) free(taken slot) {
	s.mu.Lock()
	l := s.lanes[taken.agentID]
	l.progress = s.now()
	if i := slices.Index(l.begun, taken.began); i >= 0 {
		l.begun = slices.Delete(l.begun, i, i+1)
	}
	s.owe(taken.agentID, l.progress.Sub(taken.began)-prompt)
	s.mu.Unlock()
	<-l.requests
	if taken.later {
		<-l.later
	}
	s.leave(taken.agentID, taken.later)
}
