package transport

import (
	"context"
	"slices"
)

// outgoingMessage is a text that waits to be written.
type outgoingMessage struct {
	text      []byte
	operation *operation // the operation that it is of; nil for none
	final     bool       // the operation ends with it
}

// send queues a text; it waits while the queue is full and gives up with ctx or
// the socket. A text of an operation that has ended is dropped.
func (s *socket) send(ctx context.Context, what outgoingMessage) {
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
func (s *socket) enqueue(what outgoingMessage) (room <-chan struct{}, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if what.operation != nil && s.findOperation(what.operation.id) != what.operation {
		return nil, true
	}
	if len(s.queue) >= maxQueuedMessages || s.queuedBytes >= maxQueuedBytes {
		if s.space == nil {
			s.space = make(chan struct{})
		}
		return s.space, false
	}
	s.queue = append(s.queue, what)
	s.queuedBytes += len(what.text)
	if what.final {
		s.removeOperation(what.operation)
	}
	s.startWriter()
	return nil, true
}

// dropQueued drops what waits of operations with an id, which have ended.
func (s *socket) dropQueued(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(what outgoingMessage) bool {
		of := what.operation != nil && what.operation.id == id
		if of {
			s.queuedBytes -= len(what.text)
		}
		return of
	})
	s.signalSpace()
}

// signalSpace has those go on who wait for room, if there is some. The lock is held.
func (s *socket) signalSpace() {
	if s.space != nil && len(s.queue) < maxQueuedMessages {
		close(s.space)
		s.space = nil
	}
}
