package executor

import (
	"context"
	"slices"
	"sync"
)

// eachAtOnce is how many runs under way one agent may have hired, and how many may
// call one agent: nobody has all turns, whoever hires whom.
const eachAtOnce = 8

// turns says who may run: so many in all, and of each who hires and each who is
// hired no more than [eachAtOnce].
type turns struct {
	all   chan struct{}
	mu    sync.Mutex
	lanes map[string]*lane
}

// lane is the runs of one agent.
type lane struct {
	room  chan struct{}
	users int // under way or waiting
}

func newTurns(all int) *turns {
	return &turns{all: make(chan struct{}, all), lanes: map[string]*lane{}}
}

// take waits for a turn, and reports false when ctx ends before. What is waited for
// in a lane holds up nobody else. Free gives the turn back.
func (t *turns) take(ctx context.Context, hirerID, agentID string) (free func(), ok bool) {
	var held []func()
	free = func() {
		for _, give := range slices.Backward(held) {
			give()
		}
	}
	for _, key := range []string{"by " + hirerID, "of " + agentID} {
		l := t.enter(key)
		held = append(held, func() { t.leave(key) })
		select {
		case l.room <- struct{}{}:
			held = append(held, func() { <-l.room })
		case <-ctx.Done():
			free()
			return nil, false
		}
	}
	select {
	case t.all <- struct{}{}:
		held = append(held, func() { <-t.all })
		return free, true
	case <-ctx.Done():
		free()
		return nil, false
	}
}

func (t *turns) enter(key string) *lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lanes[key]
	if l == nil {
		l = &lane{room: make(chan struct{}, eachAtOnce)}
		t.lanes[key] = l
	}
	l.users++
	return l
}

func (t *turns) leave(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.lanes[key]; l.users == 1 {
		delete(t.lanes, key)
	} else {
		l.users--
	}
}
