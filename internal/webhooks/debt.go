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
	// prompt is several times what a receiver takes that puts the event into a queue
	// of its own, far away and over a new connection with TLS.
	prompt = 2 * time.Second
	// allowance is less than what one try owes that takes the whole of 15 s, and more
	// than what a receiver does that is late now and then.
	allowance = 10 * time.Second
	// payback is in how many seconds one is paid back: by hanging, an endpoint can
	// have a thirtieth of a worker of the first tries in the long run.
	payback = 30
	// mostOwed is what four requests that hang come to, about: 25 minutes later all
	// is forgiven but allowance.
	mostOwed = 60 * time.Second
	// leastForgotten is how many debts are kept before it is worth a look which of
	// them are paid; one takes about a hundred bytes.
	leastForgotten = 1000
)

// debt is what an endpoint owed at a time.
type debt struct {
	owed time.Duration
	at   time.Time
}

// left is what of it is owed at another time.
func (d debt) left(now time.Time) time.Duration {
	return max(d.owed-max(now.Sub(d.at), 0)/payback, 0)
}

// slow reports whether an agent has kept requests waiting for so long that its first
// tries are to hold up no other's.
func (s *slots) slow(agentID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owed(agentID) >= allowance
}

// owed is what an agent owes now. The lock is held, as by owe.
func (s *slots) owed(agentID string) time.Duration {
	now := s.now()
	owed := s.debts[agentID].left(now)
	if l := s.lanes[agentID]; l != nil {
		for _, began := range l.begun {
			owed += max(now.Sub(began)-prompt, 0)
		}
	}
	return min(owed, mostOwed)
}

// owe adds to what an agent owes, if it is anything.
func (s *slots) owe(agentID string, over time.Duration) {
	if over <= 0 {
		return
	}
	now := s.now()
	s.debts[agentID] = debt{owed: min(s.debts[agentID].left(now)+over, mostOwed), at: now}
	if len(s.debts) > s.forgetAt {
		maps.DeleteFunc(s.debts, func(_ string, d debt) bool { return d.left(now) == 0 })
		s.forgetAt = 2*len(s.debts) + leastForgotten
	}
}
