package events

import (
	"context"
	"sync"

	"agentmarket.space/server/models"
)

// Filter reports whether a feed delivers an event.
type Filter func(*models.Event) bool

// Interest selects the events of a feed: those with at least one of the topics that
// also pass the filter.
type Interest struct {
	Topics []Topic
	Filter Filter
}

// Feed is a stream of events. It has no goroutine, and no queue while it is idle:
// its reader calls Next until there is no event, and then waits for a call of wake.
// A feed has one reader, which must close it. Feeds share events, so the reader must
// not change them.
type Feed struct {
	log      *Log
	interest Interest
	wake     func(*models.Event)

	cursor    int64          // of the last event delivered or filtered out
	history   []models.Event // rest of the current page of history
	replaying bool           // reading history; new events are queued
	lastPage  bool           // the current page was the last one when it was read

	mu          sync.Mutex
	queue       []*models.Event // nil while empty
	lastOffered int64           // cursor of the last event offered
	overflowed  bool            // an event was dropped because the queue was full
	asleep      bool            // the reader waits for wake
	closed      bool
}

// OpenFeed opens a feed of the events after a cursor, or of new events if after is
// nil. Each time Next has returned no event, the feed calls wake once: with the next
// event, or with nil when the reader must call Next to read more history or to get
// the error that ended the feed. wake must not block and must not call the log.
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

// Close closes the feed. Next then returns no events. Close must be called once and
// can be called at any time.
func (f *Feed) Close() {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	f.log.feeds.remove(f)
	f.log.feedCount--
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// Next returns the next event, or nil if there is none yet. To read history, it reads
// one page of the log, calls wake, and returns nil, so that a reader can do other
// work between pages. An error ends the feed: SLOW_CONSUMER if the reader is more
// than 256 events behind, INVALID_INPUT for a cursor after the end of the log,
// CURSOR_EXPIRED if the events after the cursor were pruned, or a database error.
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
	return nil, nil //nolint:nilnil // no event yet; wake was called
}

// Replaying reports whether the last event returned by Next is from history. Such an
// event is not shared with other feeds.
func (f *Feed) Replaying() bool { return f.replaying }

// nextFromHistory returns the next matching event of the current page of history, or
// nil.
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

// readNextPage reads the next page of history. After the last page it ends the
// replay. The feed also queues new events during the replay, so no event is missed.
// If that queue overflowed, the replay continues, because the log has the dropped
// events. A replaying reader is not slow.
func (f *Feed) readNextPage(ctx context.Context) error {
	if f.lastPage && !f.clearOverflow() {
		f.replaying, f.history = false, nil
		return nil
	}
	page, err := f.log.readPage(ctx, f.cursor)
	if err == nil { // checked after the read, so no event was pruned before it
		err = f.log.checkCursor(ctx, f.cursor)
	}
	if err != nil {
		return err
	}
	f.history, f.lastPage = page, len(page) < pageSize
	return nil
}

// clearOverflow reports whether the queue overflowed, and empties it. The log has its
// events.
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

// nextFromQueue returns the next queued event. It skips events that the replay has
// already delivered.
func (f *Feed) nextFromQueue() (*models.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, nil //nolint:nilnil // the feed is closed
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
			"the subscriber is more than %d events behind; subscribe again with after set to the last cursor received", maxQueuedEvents)
	}
	f.asleep = true
	return nil, nil //nolint:nilnil // no event yet
}

// offer queues an event once, without blocking. The caller holds the log's lock.
func (f *Feed) offer(event *models.Event) {
	if f.interest.Filter(event) && f.enqueue(event) {
		f.wake(event)
	}
}

// closeAsSlow makes Next return SLOW_CONSUMER after the queued events. The caller
// holds the log's lock.
func (f *Feed) closeAsSlow() {
	f.mu.Lock()
	asleep := f.asleep
	f.overflowed, f.asleep = true, false
	f.mu.Unlock()
	if asleep {
		f.wake(nil)
	}
}

// enqueue adds an event to the queue. It reports whether the reader must be woken.
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
