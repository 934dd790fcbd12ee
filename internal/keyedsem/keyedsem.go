// Package keyedsem limits concurrency per key, for example per agent.
//
// It keeps one counting semaphore for each key in use. A semaphore is created
// when its key is first entered and removed when no caller holds or waits for
// one of its slots, so memory depends on the number of active keys only.
package keyedsem

import (
	"context"
	"sync"
)

// Semaphore is a set of counting semaphores, one per key. It is safe for
// concurrent use.
type Semaphore struct {
	slots      int
	maxTickets int

	mu   sync.Mutex
	keys map[string]*keyState
}

type keyState struct {
	slots   chan struct{}
	tickets int // callers that hold or wait for a slot
}

// New returns a Semaphore with a number of slots for each key. At most
// maxTickets callers hold or wait for a slot of one key; 0 means no limit.
func New(slots, maxTickets int) *Semaphore {
	return &Semaphore{slots: slots, maxTickets: maxTickets, keys: map[string]*keyState{}}
}

// Ticket is the place of one caller among those that hold or wait for a slot of
// a key. Only one goroutine may use it at a time.
type Ticket struct {
	semaphore *Semaphore
	key       string
	state     *keyState
	acquired  bool
}

// Enter returns a ticket for key, or false when the key already has the maximum
// number of tickets. The caller must release the ticket.
func (s *Semaphore) Enter(key string) (*Ticket, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.keys[key]
	if state == nil {
		state = &keyState{slots: make(chan struct{}, s.slots)}
		s.keys[key] = state
	}
	if s.maxTickets > 0 && state.tickets >= s.maxTickets {
		return nil, false
	}
	state.tickets++
	return &Ticket{semaphore: s, key: key, state: state}, true
}

// Tickets returns the number of callers that hold or wait for a slot of key.
func (s *Semaphore) Tickets(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.keys[key]; state != nil {
		return state.tickets
	}
	return 0
}

// Keys returns the number of keys in use.
func (s *Semaphore) Keys() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys)
}

// Acquire waits for a slot and reports whether the ticket got one before ctx
// was done. A free slot is taken even if ctx is already done. A ticket takes one
// slot: Acquire must not be called again after it returned true.
func (t *Ticket) Acquire(ctx context.Context) bool {
	select {
	case t.state.slots <- struct{}{}:
		t.acquired = true
		return true
	default:
	}
	select {
	case t.state.slots <- struct{}{}:
		t.acquired = true
	case <-ctx.Done():
	}
	return t.acquired
}

// Release frees the ticket and its slot, if it acquired one. It must be called
// once.
func (t *Ticket) Release() {
	if t.acquired {
		<-t.state.slots
	}
	t.semaphore.mu.Lock()
	defer t.semaphore.mu.Unlock()
	t.state.tickets--
	if t.state.tickets == 0 {
		delete(t.semaphore.keys, t.key)
	}
}
