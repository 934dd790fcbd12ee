package load

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Audience is many live subscribers to the same events. It knows of every
// subscriber which events reached it and when.
type Audience struct {
	sockets []*socket
	readers errgroup.Group
	epoch   time.Time
	closing atomic.Bool
	lost    chan error // the first subscriber whose stream ended

	events []event // by number; 0 is no event
	used   int
	twice  atomic.Int64
	whole  chan int // numbers of events that have reached everybody
}

type event struct {
	posted   time.Duration // since epoch
	reached  atomic.Int64
	arrivals []atomic.Int64 // by subscriber, nanoseconds since epoch
}

// Gather opens so many subscriptions and has their events, up to so many,
// awaited. Whether the server already delivers to all of them only Warm tells.
func Gather(ctx context.Context, sub Subscription, subscribers, events int) (*Audience, error) {
	a := &Audience{
		sockets: make([]*socket, subscribers),
		epoch:   time.Now(),
		lost:    make(chan error, 1),
		events:  make([]event, events+1),
		whole:   make(chan int, events+1),
	}
	for i := range a.events {
		a.events[i].arrivals = make([]atomic.Int64, subscribers)
	}
	var opening errgroup.Group
	opening.SetLimit(32)
	for i := range a.sockets {
		opening.Go(func() (err error) {
			if a.sockets[i], err = sub.open(ctx, i); err != nil {
				return fmt.Errorf("subscriber %d: %w", i+1, err)
			}
			a.readers.Go(func() error { return a.listen(i) })
			return nil
		})
	}
	if err := opening.Wait(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// Close ends all subscriptions.
func (a *Audience) Close() error {
	a.closing.Store(true)
	for _, s := range a.sockets {
		if s != nil {
			s.conn.Close() //nolint:errcheck // nothing is lost with it
		}
	}
	return a.readers.Wait()
}

func (a *Audience) listen(subscriber int) error {
	for {
		number, err := a.sockets[subscriber].next()
		if a.closing.Load() {
			return nil
		}
		now := time.Since(a.epoch)
		if err == nil && (number <= 0 || number >= len(a.events)) {
			err = fmt.Errorf("event %d was never posted", number)
		}
		if err != nil {
			select {
			case a.lost <- fmt.Errorf("subscriber %d: %w", subscriber+1, err):
			default:
			}
			return nil
		}
		e := &a.events[number]
		if !e.arrivals[subscriber].CompareAndSwap(0, int64(now)) {
			a.twice.Add(1)
			continue
		}
		if e.reached.Add(1) == int64(len(a.sockets)) {
			a.whole <- number
		}
	}
}

// Warm posts until an event has reached everybody: what is missed later was
// lost by the server, and not posted before a subscription was live.
func (a *Audience) Warm(ctx context.Context, addr string, post Request) error {
	conn, err := Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	for range 50 {
		number, err := a.number()
		if err != nil {
			return err
		}
		if _, err := conn.Do(post, int64(number)); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, time.Second)
		err = a.awaitWhole(wait, number)
		cancel()
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return errors.New("no event has reached every subscriber")
}

// number claims the next event.
func (a *Audience) number() (int, error) {
	if a.used+1 >= len(a.events) {
		return 0, fmt.Errorf("all %d events are used up", len(a.events)-1)
	}
	a.used++
	return a.used, nil
}

// awaitWhole returns when an event numbered from or later has reached everybody.
func (a *Audience) awaitWhole(ctx context.Context, from int) error {
	for {
		select {
		case number := <-a.whole:
			if number >= from {
				return nil
			}
		case err := <-a.lost:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Delivery is what it took to bring events to an audience.
type Delivery struct {
	Deliveries int64
	// Elapsed is from the first post to the last arrival.
	Elapsed time.Duration
	// Latency is from just before an event was posted to each arrival.
	Latency Histogram
}

// Pacing says when the next event is posted.
type Pacing struct {
	// Window posts it once fewer than so many are on their way.
	Window int
	// PerSecond, when not 0, posts it at its planned time, and counts latency
	// from that time.
	PerSecond float64
}

// Broadcast posts events and waits for all to have reached everybody. An event
// that somebody missed or got twice is an error.
func (a *Audience) Broadcast(ctx context.Context, addr string, post Request, events int, pacing Pacing) (*Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	first := a.used + 1
	if first+events > len(a.events) {
		return nil, fmt.Errorf("%d more events are more than the %d awaited", events, len(a.events)-1)
	}
	a.used += events

	group, ctx := errgroup.WithContext(ctx)
	turns := make(chan int) // event numbers whose time has come
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
			if err := a.awaitWhole(ctx, first); err != nil {
				return fmt.Errorf("%w: %s", err, a.missing(first, events))
			}
			<-underway
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	time.Sleep(200 * time.Millisecond) // what comes twice comes late
	if n := a.twice.Load(); n > 0 {
		return nil, fmt.Errorf("%w: %d deliveries came twice", ErrWrongAnswer, n)
	}
	return a.delivery(first, events), nil
}

// schedule sends each event's number when it may be posted, having noted the
// time that its latency counts from.
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
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	for number := range turns {
		if _, err := conn.Do(post, int64(number)); err != nil {
			return err
		}
	}
	return nil
}

func (a *Audience) missing(first, events int) string {
	missed := int64(0)
	for i := first; i < first+events; i++ {
		missed += int64(len(a.sockets)) - a.events[i].reached.Load()
	}
	return fmt.Sprintf("%d of %d deliveries had not come", missed, events*len(a.sockets))
}

func (a *Audience) delivery(first, events int) *Delivery {
	d := &Delivery{Deliveries: int64(events) * int64(len(a.sockets))}
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
