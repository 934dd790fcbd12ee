package events

import (
	"context"

	"agentmarket.space/server/models"
)

// Filter says which events a subscription is for.
type Filter func(*models.Event) bool

// Subscription is a stream of events, which others may have in hand too: they
// are not to be changed. Read C until it is closed, then ask Err.
type Subscription struct {
	C      <-chan *models.Event
	log    *Log
	filter Filter
	queue  chan *models.Event
	behind bool // an event found the queue full; guarded by log.mu
	err    error
}

// Subscribe opens a stream of the events that pass the filter, beginning after
// a cursor, or with what happens from now on when after is nil. It ends with
// ctx, when its reader falls more than 256 events behind: Err then returns
// SLOW_CONSUMER, or at once for a cursor past the end of the log: INVALID_INPUT,
// and for one whose next events are no longer kept: CURSOR_EXPIRED.
func (l *Log) Subscribe(ctx context.Context, filter Filter, after *int64) *Subscription {
	out := make(chan *models.Event)
	s := &Subscription{C: out, log: l, filter: filter, queue: make(chan *models.Event, buffer)}
	from := s.join()
	if after != nil {
		from = *after
	}
	go s.run(ctx, out, from, after != nil)
	return s
}

// Err tells why C was closed: nil when ctx ended. Call it after C is closed.
func (s *Subscription) Err() error { return s.err }

// offer queues an event without waiting. The log's lock is held.
func (s *Subscription) offer(event *models.Event) {
	if s.behind || !s.filter(event) {
		return
	}
	select {
	case s.queue <- event:
	default:
		s.behind = true
	}
}

// cutOff ends the stream after what is queued, as if its reader had fallen behind.
// The log's lock is held.
func (s *Subscription) cutOff() {
	s.behind = true
	select {
	case s.queue <- &models.Event{}: // it is before every cursor: it only wakes the stream up
	default:
	}
}

// join puts the subscription among the live ones and returns the cursor from
// which on it hears everything.
func (s *Subscription) join() int64 {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.behind = false
	s.log.live[s] = struct{}{}
	return s.log.head
}

func (s *Subscription) leave() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	delete(s.log.live, s)
}

func (s *Subscription) isBehind() bool {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.behind
}

// run feeds out: first, when asked, what is in the log after the cursor, then
// what happens. The live queue is joined before the log is read, so that
// nothing falls in between; what both bring is sent once.
func (s *Subscription) run(ctx context.Context, out chan<- *models.Event, cursor int64, replay bool) {
	defer close(out)
	defer s.leave()
	if replay {
		if cursor, s.err = s.replay(ctx, out, cursor); s.err != nil {
			return
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-s.queue:
			if event.Seq > cursor { // the replay may have sent it
				if !send(ctx, out, event) {
					return
				}
				cursor = event.Seq
			}
		}
		if len(s.queue) == 0 && s.isBehind() {
			s.err = models.Errorf(models.SlowConsumer,
				"this reader fell more than %d events behind; subscribe again after the last cursor seen", buffer)
			return
		}
	}
}

// replay sends what the log has after the cursor. When the live queue overflowed
// meanwhile it starts over from where it got to: reading history is no fault.
func (s *Subscription) replay(ctx context.Context, out chan<- *models.Event, cursor int64) (int64, error) {
	for {
		events, err := s.log.read(ctx, cursor)
		if err == nil { // after the page: nothing that it lacks had been taken away
			err = s.log.check(ctx, cursor)
		}
		if err != nil {
			return cursor, ignoreEnd(ctx, err)
		}
		for i := range events {
			if s.filter(&events[i]) && !send(ctx, out, &events[i]) {
				return cursor, nil
			}
			cursor = events[i].Seq
		}
		if len(events) == page {
			continue
		}
		if !s.isBehind() {
			return cursor, nil
		}
		s.drain()
		s.join()
	}
}

// drain empties the live queue; what it held is in the log.
func (s *Subscription) drain() {
	for {
		select {
		case <-s.queue:
		default:
			return
		}
	}
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // ctx ended: that is no error of the stream
	}
	return err
}

func send(ctx context.Context, out chan<- *models.Event, event *models.Event) bool {
	select {
	case out <- event:
		return true
	case <-ctx.Done():
		return false
	}
}
