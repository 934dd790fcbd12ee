package executor

import (
	"context"
	"slices"
	"sync"
)

// maxRunsPerAgent is how many runs under way one agent may have hired, and how many may
// call one agent: nobody has all turns, whoever hires whom.
const maxRunsPerAgent = 8

// limiter says who may run: so many in all, and of each who hires and each who is
// hired no more than [maxRunsPerAgent].
type limiter struct {
	slots      chan struct{}
	mu         sync.Mutex
	semaphores map[string]*semaphore
}

// semaphore is the runs of one agent.
type semaphore struct {
	slots chan struct{}
	refs  int // under way or waiting
}

func newLimiter(all int) *limiter {
	return &limiter{slots: make(chan struct{}, all), semaphores: map[string]*semaphore{}}
}

// acquire waits for a turn, and reports false when ctx ends before. What is waited for
// in a lane holds up nobody else. Free gives the turn back.
func (t *limiter) acquire(ctx context.Context, hirerID, agentID string) (free func(), ok bool) {
	var held []func()
	free = func() {
		for _, give := range slices.Backward(held) {
			give()
		}
	}
	for _, key := range []string{"by " + hirerID, "of " + agentID} {
		l := t.retain(key)
		held = append(held, func() { t.release(key) })
		select {
		case l.slots <- struct{}{}:
			held = append(held, func() { <-l.slots })
		case <-ctx.Done():
			free()
			return nil, false
		}
	}
	select {
	case t.slots <- struct{}{}:
		held = append(held, func() { <-t.slots })
		return free, true
	case <-ctx.Done():
		free()
		return nil, false
	}
}

func (t *limiter) retain(key string) *semaphore {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.semaphores[key]
	if l == nil {
		l = &semaphore{slots: make(chan struct{}, maxRunsPerAgent)}
		t.semaphores[key] = l
	}
	l.refs++
	return l
}

func (t *limiter) release(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.semaphores[key]; l.refs == 1 {
		delete(t.semaphores, key)
	} else {
		l.refs--
	}
}
