package events

import (
	"context"
	"sync"

	"agentmarket.space/server/models"
)

// Filter says which events a subscription is for.
type Filter func(*models.Event) bool

// Interest is what a feed is for: the events about any of its topics that pass
// its filter too.
type Interest struct {
	Topics []Topic
	Filter Filter
}

// Feed is a stream of events, which others may have in hand too: they are not
// to be changed. It has no goroutine, and no queue while nothing waits in it:
// its reader asks for the next event until there is none, and is woken up when
// there is. It has one reader at a time, and is closed by whoever opened it.
type Feed struct {
	log      *Log
	interest Interest
	wake     func(*models.Event)

	cursor    int64          // of the last event that was given out or left out
	history   []models.Event // of the page of history at hand
	replaying bool           // history is read; what happens meanwhile is queued
	lastPage  bool           // the page at hand was the last one when it was read

	mu          sync.Mutex
	queue       []*models.Event // nil while nothing waits
	lastOffered int64           // cursor of the last event that was offered
	overflowed  bool            // an event found the queue full
	asleep      bool            // the reader waits to be woken
	closed      bool
}

// OpenFeed opens a feed of what happens from now on, or, unless it is nil, of all
// that happened after a cursor. Each time that Next has returned nothing, wake
// is called with the first event that happens then, or with nil when Next is to
// be called anyway: there is more history to read, or the feed is over. It must
// neither wait nor call the log.
func (l *Log) OpenFeed(interest Interest, after *int64, wake func(*models.Event)) *Feed {
	f := &Feed{log: l, interest: interest, wake: wake, replaying: after != nil}
	l.mu.Lock()
	defer l.mu.Unlock()
	f.cursor = l.head
	if after != nil {
		f.cursor = *after
	}
	l.feeds.add(f)
	l.feedCount++
	return f
}

// Close ends the feed: Next returns nothing more. It is called once, at any time.
func (f *Feed) Close() {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	f.log.feeds.remove(f)
	f.log.feedCount--
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// Next returns the next event, or nil when there is none yet. Only history makes
// it wait, for the store: it reads one page of the log, returns nothing, and has
// called wake already. So its reader can do something else in between, however
// long the log is and however little of it is for this feed. An error is the
// feed's end: SLOW_CONSUMER when its reader fell more than 256 events behind,
// INVALID_INPUT for a cursor past the end of the log, CURSOR_EXPIRED for one whose
// next events are no longer kept, or the store's.
func (f *Feed) Next(ctx context.Context) (*models.Event, error) {
	if !f.replaying || f.isClosed() {
		return f.nextFromQueue()
	}
	if event := f.nextFromHistory(); event != nil {
		return event, nil
	}
	if err := f.readNextPage(ctx); err != nil {
		return nil, err
	}
	if !f.replaying {
		return f.nextFromQueue()
	}
	f.wake(nil)
	return nil, nil //nolint:nilnil // none yet, but to be asked again
}

// Replaying reports whether the event that Next returned last was read for this feed
// alone: it is one of history, and nobody else has it in hand.
func (f *Feed) Replaying() bool { return f.replaying }

// nextFromHistory returns the next event of the page of history at hand.
func (f *Feed) nextFromHistory() *models.Event {
	for len(f.history) > 0 {
		event := &f.history[0]
		f.history, f.cursor = f.history[1:], event.Seq
		if f.interest.Filter(event) {
			return event
		}
	}
	return nil
}

// readNextPage reads the next page of history, or ends the replay after the last
// one. The feed was among the live ones before the log was read, so that
// nothing falls in between. When the queue overflowed meanwhile history goes on
// from where it got to: to read it is no fault.
func (f *Feed) readNextPage(ctx context.Context) error {
	if f.lastPage && !f.clearOverflow() {
		f.replaying, f.history = false, nil
		return nil
	}
	past, err := f.log.readPage(ctx, f.cursor)
	if err == nil { // after the page: nothing that it lacks had been taken away
		err = f.log.checkCursor(ctx, f.cursor)
	}
	if err != nil {
		return err
	}
	f.history, f.lastPage = past, len(past) < pageSize
	return nil
}

// clearOverflow empties a queue that overflowed, and reports whether it had. What it
// held is in the log.
func (f *Feed) clearOverflow() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.overflowed {
		return false
	}
	f.overflowed, f.queue = false, nil
	return true
}

func (f *Feed) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// nextFromQueue returns what happened; what the replay has brought is not brought
// again.
func (f *Feed) nextFromQueue() (*models.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, nil //nolint:nilnil // there will be none
	}
	for len(f.queue) > 0 {
		event := f.queue[0]
		f.queue = f.queue[1:]
		if event.Seq > f.cursor {
			f.cursor = event.Seq
			return event, nil
		}
	}
	f.queue = nil
	if f.overflowed {
		f.log.slowConsumers.Add(1)
		return nil, models.Errorf(models.SlowConsumer,
			"this reader fell more than %d events behind; subscribe again after the last cursor seen", maxQueuedEvents)
	}
	f.asleep = true
	return nil, nil //nolint:nilnil // there is none yet
}

// offer queues an event, without waiting and at most once. The log's lock is
// held.
func (f *Feed) offer(event *models.Event) {
	if f.interest.Filter(event) && f.enqueue(event) {
		f.wake(event)
	}
}

// closeAsSlow ends the feed after what is queued, as if its reader had fallen behind.
// The log's lock is held.
func (f *Feed) closeAsSlow() {
	f.mu.Lock()
	asleep := f.asleep
	f.overflowed, f.asleep = true, false
	f.mu.Unlock()
	if asleep {
		f.wake(nil)
	}
}

// enqueue reports whether the reader is to be woken.
func (f *Feed) enqueue(event *models.Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.overflowed || event.Seq <= f.lastOffered {
		return false
	}
	f.lastOffered = event.Seq
	if len(f.queue) == maxQueuedEvents {
		f.overflowed = true
		return false
	}
	f.queue = append(f.queue, event)
	asleep := f.asleep
	f.asleep = false
	return asleep
}
