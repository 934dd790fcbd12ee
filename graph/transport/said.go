package transport

import (
	"context"
	"slices"
)

// said is a text that waits to be written.
type said struct {
	text []byte
	by   *running // the operation that it is of; nil for none
	last bool     // the operation ends with it
}

// send queues a text; it waits while the queue is full and gives up with ctx or
// the socket. A text of an operation that has ended is dropped.
func (s *socket) send(ctx context.Context, what said) {
	for {
		room, done := s.enqueue(what) //nolint:contextcheck // who writes does so for the socket
		if done {
			return
		}
		select {
		case <-room:
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// enqueue queues or drops a text, or, when there is no room, returns what tells
// when there is.
func (s *socket) enqueue(what said) (room <-chan struct{}, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if what.by != nil && s.find(what.by.id) != what.by {
		return nil, true
	}
	if len(s.frames) >= maxQueued || s.waiting >= maxQueuedBytes {
		if s.room == nil {
			s.room = make(chan struct{})
		}
		return s.room, false
	}
	s.frames = append(s.frames, what)
	s.waiting += len(what.text)
	if what.last {
		s.remove(what.by)
	}
	s.start()
	return nil, true
}

// unsay drops what waits of operations with an id, which have ended.
func (s *socket) unsay(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = slices.DeleteFunc(s.frames, func(what said) bool {
		of := what.by != nil && what.by.id == id
		if of {
			s.waiting -= len(what.text)
		}
		return of
	})
	s.tellOfRoom()
}

// tellOfRoom has those go on who wait for room, if there is some. The lock is held.
func (s *socket) tellOfRoom() {
	if s.room != nil && len(s.frames) < maxQueued {
		close(s.room)
		s.room = nil
	}
}
