package events

import (
	"context"

	"agentmarket.space/server/models"
)

// Subscription is a feed for those who would rather wait at a channel. Read C
// until it is closed, then ask Err.
type Subscription struct {
	C    <-chan *models.Event
	feed *Feed
	err  error
}

// Subscribe opens a stream of the events that pass the filter, beginning after
// a cursor, or with what happens from now on when after is nil. It ends with
// ctx, and as a feed does: see [Feed.Next].
func (l *Log) Subscribe(ctx context.Context, filter Filter, after *int64) *Subscription {
	out, woken := make(chan *models.Event), make(chan struct{}, 1)
	s := &Subscription{C: out}
	s.feed = l.OpenFeed(Interest{[]Topic{AllEventsTopic()}, filter}, after, func(*models.Event) { woken <- struct{}{} })
	go s.run(ctx, out, woken)
	return s
}

// Err tells why C was closed: nil when ctx ended. Call it after C is closed.
func (s *Subscription) Err() error { return s.err }

// run hands the feed's events on.
func (s *Subscription) run(ctx context.Context, out chan<- *models.Event, woken <-chan struct{}) {
	defer close(out)
	defer s.feed.Close()
	for {
		event, err := s.feed.Next(ctx)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				s.err = err
			}
			return
		case event != nil:
			if !send(ctx, out, event) {
				return
			}
		default:
			if !waitForWake(ctx, woken) {
				return
			}
		}
	}
}

func send(ctx context.Context, out chan<- *models.Event, event *models.Event) bool {
	select {
	case out <- event:
		return true
	case <-ctx.Done():
		return false
	}
}

func waitForWake(ctx context.Context, woken <-chan struct{}) bool {
	select {
	case <-woken:
		return true
	case <-ctx.Done():
		return false
	}
}
