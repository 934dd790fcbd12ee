package transport

import (
	"context"
	"slices"
)

// outgoingMessage is a message in the send queue.
type outgoingMessage struct {
	text      []byte
	operation *operation // the operation that sent it; nil for none
	final     bool       // the last message of the operation
}

// send queues a message. It blocks while the queue is full, until ctx is done or the
// socket is closed. It drops the message if its operation has ended.
func (s *socket) send(ctx context.Context, msg outgoingMessage) {
	for {
		space, done := s.enqueue(msg)
		if done {
			return
		}
		select {
		case <-space:
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// enqueue queues or drops a message and returns true. If the queue is full, it returns
// false and a channel that is closed when there is space.
func (s *socket) enqueue(msg outgoingMessage) (space <-chan struct{}, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if msg.operation != nil && s.findOperation(msg.operation.id) != msg.operation {
		return nil, true
	}
	if len(s.queue) >= maxQueuedMessages || s.queuedBytes >= maxQueuedBytes {
		if s.space == nil {
			s.space = make(chan struct{})
		}
		return s.space, false
	}
	s.queue = append(s.queue, msg)
	s.queuedBytes += len(msg.text)
	if msg.final {
		s.removeOperation(msg.operation)
	}
	s.startWriter()
	return nil, true
}

// dropQueued drops the queued messages of the operations that match. The operations must
// have ended. The caller holds mu.
func (s *socket) dropQueued(match func(*operation) bool) {
	s.queue = slices.DeleteFunc(s.queue, func(msg outgoingMessage) bool {
		drop := msg.operation != nil && match(msg.operation)
		if drop {
			s.queuedBytes -= len(msg.text)
		}
		return drop
	})
	s.signalSpace()
}

// signalSpace wakes blocked senders if the queue has space. The caller holds mu.
func (s *socket) signalSpace() {
	if s.space != nil && len(s.queue) < maxQueuedMessages {
		close(s.space)
		s.space = nil
	}
}
