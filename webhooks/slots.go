package webhooks

import (
	"context"
	"sync"
	"time"
)

const (
	// perEndpoint is how many requests to one agent are under way at most.
	perEndpoint = 4
	// waitingRoom is how many more wait for one of them to end, and waitingTime
	// how long. Without it an endpoint that answers at once would get four
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
	users    int           // under way or waiting
	progress time.Time     // when a request last ended
}

// take reserves a slot, for which it may wait a moment, and reports whether it
// got one. When not, it tells how long the agent has made no progress.
func (s *slots) take(ctx context.Context, agentID string) (stalled time.Duration, ok bool) {
	l := s.enter(agentID)
	if l == nil {
		return s.stalled(agentID), false
	}
	timer := time.NewTimer(waitingTime)
	defer timer.Stop()
	select {
	case l.requests <- struct{}{}:
		return 0, true
	case <-timer.C:
	case <-ctx.Done():
	}
	stalled = s.stalled(agentID)
	s.leave(agentID)
	return stalled, false
}

// enter joins an agent's lane; nil when there is no room.
func (s *slots) enter(agentID string) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[agentID]
	if l == nil {
		l = &lane{requests: make(chan struct{}, perEndpoint), progress: s.now()}
		s.lanes[agentID] = l
	}
	if l.users == perEndpoint+waitingRoom {
		return nil
	}
	l.users++
	return l
}

func (s *slots) leave(agentID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[agentID]; l.users == 1 {
		delete(s.lanes, agentID)
	} else {
		l.users--
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

// free gives a slot back.
func (s *slots) free(agentID string) {
	s.mu.Lock()
	l := s.lanes[agentID]
	l.progress = s.now()
	s.mu.Unlock()
	<-l.requests
	s.leave(agentID)
}
