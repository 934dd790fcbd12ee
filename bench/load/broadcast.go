package load

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Delivery is the result of a broadcast.
type Delivery struct {
	Deliveries int64
	// Elapsed is the time from the first post to the last arrival.
	Elapsed time.Duration
	// Latency is the time from just before a post to each arrival of its event.
	Latency Histogram
}

// Pacing defines when the next event is posted.
type Pacing struct {
	// Window posts when fewer than this number of events are in flight.
	Window int
	// PerSecond, if not 0, posts at fixed times and measures latency from them.
	PerSecond float64
}

// Broadcast posts events and waits until all have reached all subscribers. A missing or
// duplicate event is an error.
func (a *Audience) Broadcast(ctx context.Context, addr string, post Request, events int, pacing Pacing) (*Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	first := a.lastNumber + 1
	if first+events > len(a.events) {
		return nil, fmt.Errorf("cannot send %d more events: want at most %d in all", events, len(a.events)-1)
	}
	a.lastNumber += events

	group, ctx := errgroup.WithContext(ctx)
	turns := make(chan int) // numbers of events to post
	underway := make(chan struct{}, pacing.Window)
	group.Go(func() error {
		defer close(turns)
		return a.schedule(ctx, first, events, pacing, underway, turns)
	})
	for range pacing.Window {
		group.Go(func() error { return a.post(ctx, addr, post, turns) })
	}
	group.Go(func() error {
		for range events {
			if err := a.waitDelivered(ctx, first); err != nil {
				return err
			}
			<-underway
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, a.describeMissing(first, events))
	}
	time.Sleep(200 * time.Millisecond) // duplicates may arrive late
	if n := a.duplicates.Load(); n > 0 {
		return nil, fmt.Errorf("%w: %d deliveries came twice", ErrWrongResponse, n)
	}
	return a.summarize(first, events), nil
}

// schedule sends each event's number when it may be posted, and records the time from which
// its latency is measured.
func (a *Audience) schedule(ctx context.Context, first, events int, pacing Pacing, underway chan<- struct{}, turns chan<- int) error {
	start := time.Now()
	for i := range events {
		select {
		case underway <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		at := time.Now()
		if pacing.PerSecond > 0 {
			at = start.Add(time.Duration(float64(i) / pacing.PerSecond * float64(time.Second)))
			time.Sleep(time.Until(at))
		}
		a.events[first+i].posted = at.Sub(a.epoch)
		select {
		case turns <- first + i:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (a *Audience) post(ctx context.Context, addr string, post Request, turns <-chan int) error {
	conn, err := Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the connection is not used again
	for number := range turns {
		if _, err := conn.Do(post, int64(number)); err != nil {
			return err
		}
	}
	return nil
}

func (a *Audience) describeMissing(first, events int) string {
	missed := int64(0)
	for i := first; i < first+events; i++ {
		missed += int64(len(a.streams)) - a.events[i].arrivalCount.Load()
	}
	return fmt.Sprintf("%d of %d deliveries had not come", missed, events*len(a.streams))
}

func (a *Audience) summarize(first, events int) *Delivery {
	d := &Delivery{Deliveries: int64(events) * int64(len(a.streams))}
	last := time.Duration(0)
	for i := first; i < first+events; i++ {
		e := &a.events[i]
		for subscriber := range e.arrivals {
			arrived := time.Duration(e.arrivals[subscriber].Load())
			d.Latency.Add(arrived - e.posted)
			last = max(last, arrived)
		}
	}
	d.Elapsed = last - a.events[first].posted
	return d
}
