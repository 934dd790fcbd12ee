package webhooks

import "sync"

// perEndpoint is how many requests to one agent are under way at most.
const perEndpoint = 4

// slots counts what is under way to each agent.
type slots struct {
	mu   sync.Mutex
	busy map[string]int
}

// take reserves a slot and reports whether there was one. It never waits.
func (s *slots) take(agentID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[agentID] == perEndpoint {
		return false
	}
	s.busy[agentID]++
	return true
}

// free gives a slot back.
func (s *slots) free(agentID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[agentID]--; s.busy[agentID] == 0 {
		delete(s.busy, agentID)
	}
}
