package webhooks

import (
	"context"
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

// slots counts what is under way to each agent.
type slots struct {
	now   func() time.Time
	mu    sync.Mutex
	lanes map[string]*lane
}

// lane is what is under way to one agent.
type lane struct {
	requests chan struct{} // has room for perEndpoint
	later    chan struct{} // those for what is later among them; has room for laterAtOnce
	users    int           // under way or waiting
	laters   int           // those for what is later among them
	progress time.Time     // when a request last ended
}

// take reserves a slot, for which it may wait a moment, and reports whether it
// got one. When not, it tells how long the agent has made no progress. Later is for
// what is later.
func (s *slots) take(ctx context.Context, agentID string, later bool) (stalled time.Duration, ok bool) {
	l := s.enter(agentID, later)
	if l == nil {
		return s.stalled(agentID), false
	}
	limited, cancel := context.WithTimeout(ctx, waitingTime)
	defer cancel()
	if l.reserve(limited, later) {
		return 0, true
	}
	stalled = s.stalled(agentID)
	s.leave(agentID, later)
	return stalled, false
}

// reserve waits for room until ctx ends, and reports whether there was some.
func (l *lane) reserve(ctx context.Context, later bool) bool {
	if later {
		select {
		case l.later <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	select {
	case l.requests <- struct{}{}:
		return true
	case <-ctx.Done():
		if later {
			<-l.later
		}
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

func (s *slots) stalled(agentID string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[agentID]; l != nil {
		return s.now().Sub(l.progress)
	}
	return 0
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
func (s *slots) free(agentID string, later bool) {
	s.mu.Lock()
	l := s.lanes[agentID]
	l.progress = s.now()
	s.mu.Unlock()
	<-l.requests
	if later {
		<-l.later
	}
	s.leave(agentID, later)
}
