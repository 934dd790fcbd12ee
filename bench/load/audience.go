package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Audience is a set of subscribers to the same events. It records which event reached which
// subscriber and when. Stalled subscribers never read.
type Audience struct {
	streams  []stream
	stalled  []stream
	sub      Subscription
	readers  errgroup.Group
	epoch    time.Time
	closing  atomic.Bool
	failures chan error // error of the first subscriber whose stream ended

	events     []event // by number, from 1
	lastNumber int
	duplicates atomic.Int64
	delivered  chan int // numbers of events that all subscribers have received
}

type event struct {
	posted       time.Duration // since epoch
	arrivalCount atomic.Int64
	arrivals     []atomic.Int64 // by subscriber, nanoseconds since epoch
}

// NewAudience opens a number of subscriptions, and further stalled ones, for up to a number
// of events. WarmUp reports when the server delivers to all of them.
func NewAudience(ctx context.Context, sub Subscription, subscribers, stalled, events int) (*Audience, error) {
	a := &Audience{
		streams:   make([]stream, subscribers),
		stalled:   make([]stream, stalled),
		sub:       sub,
		epoch:     time.Now(),
		failures:  make(chan error, 1),
		events:    make([]event, events+1),
		delivered: make(chan int, events+1),
	}
	for i := range a.events {
		a.events[i].arrivals = make([]atomic.Int64, subscribers)
	}
	var opening errgroup.Group
	opening.SetLimit(32)
	for i := range a.stalled { // first, so that they would delay all others
		opening.Go(func() (err error) {
			a.stalled[i], err = sub.open(ctx, i, smallBufferDialer())
			return err
		})
	}
	for i := range a.streams {
		opening.Go(func() (err error) {
			if a.streams[i], err = sub.open(ctx, stalled+i, net.Dialer{}); err != nil {
				return fmt.Errorf("subscriber %d: %w", i+1, err)
			}
			a.readers.Go(func() error { return a.readEvents(i) })
			return nil
		})
	}
	if err := opening.Wait(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// smallBufferDialer dials connections whose sender blocks after little data: they have a
// small window, and short segments keep the sender's buffer small too. Otherwise a loopback
// connection buffers megabytes.
func smallBufferDialer() net.Dialer {
	return net.Dialer{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) {
			failed = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2<<10),
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536))
		})
		return errors.Join(err, failed)
	}}
}

// DrainStalled reads from the stalled subscribers and returns how many of them the server
// had disconnected before the last event.
func (a *Audience) DrainStalled() (ended int) {
	for _, s := range a.stalled {
		timer := time.AfterFunc(responseTimeout, func() { s.close() }) //nolint:errcheck // it unblocks the reader
		for range a.lastNumber {
			if _, err := s.message(); err != nil {
				if timer.Stop() {
					ended++
				}
				break
			}
		}
		timer.Stop()
	}
	return ended
}

// Close closes all subscriptions.
func (a *Audience) Close() error {
	a.closing.Store(true)
	for _, s := range slices.Concat(a.streams, a.stalled) {
		if s != nil {
			s.close() //nolint:errcheck // the connection is not used again
		}
	}
	return a.readers.Wait()
}

func (a *Audience) readEvents(subscriber int) error {
	cursor := int64(0)
	for {
		number, err := a.nextEvent(subscriber, &cursor)
		if a.closing.Load() {
			return nil
		}
		now := time.Since(a.epoch)
		if err != nil {
			select {
			case a.failures <- fmt.Errorf("subscriber %d: %w", subscriber+1, err):
			default:
			}
			return nil
		}
		e := &a.events[number]
		if !e.arrivals[subscriber].CompareAndSwap(0, int64(now)) {
			a.duplicates.Add(1)
			continue
		}
		if e.arrivalCount.Add(1) == int64(len(a.streams)) {
			a.delivered <- number
		}
	}
}

// nextEvent returns the number of a subscriber's next event. Its cursor must be higher than
// the last.
func (a *Audience) nextEvent(subscriber int, cursor *int64) (number int, err error) {
	message, err := a.streams[subscriber].message()
	if err != nil {
		return 0, err
	}
	number, ok := readStamp(message, []byte(a.sub.StampPrefix))
	if !ok || bytes.Contains(message, []byte(`"errors":`)) {
		return 0, fmt.Errorf("%w: %.300s", ErrWrongResponse, message)
	}
	if number <= 0 || number >= len(a.events) {
		return 0, fmt.Errorf("event %d was never posted", number)
	}
	if a.sub.CursorPrefix == "" {
		return number, nil
	}
	seq, ok := readNumber(message, []byte(a.sub.CursorPrefix))
	if !ok || seq <= *cursor {
		return 0, fmt.Errorf("%w: cursor %d came after %d: %.300s", ErrWrongResponse, seq, *cursor, message)
	}
	*cursor = seq
	return number, nil
}

// WarmUp posts events until one has reached all subscribers, so that later missing events
// are lost by the server and not posted before a subscription was live.
func (a *Audience) WarmUp(ctx context.Context, addr string, post Request) error {
	conn, err := Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the connection is not used again
	for range 50 {
		number, err := a.claimNumber()
		if err != nil {
			return err
		}
		if _, err := conn.Do(post, int64(number)); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, time.Second)
		err = a.waitDelivered(wait, number)
		cancel()
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return errors.New("no event has reached every subscriber")
}

// claimNumber claims the next event number.
func (a *Audience) claimNumber() (int, error) {
	if a.lastNumber+1 >= len(a.events) {
		return 0, fmt.Errorf("all %d events are used up", len(a.events)-1)
	}
	a.lastNumber++
	return a.lastNumber, nil
}

// waitDelivered waits until an event with a number of at least from has reached all
// subscribers.
func (a *Audience) waitDelivered(ctx context.Context, from int) error {
	for {
		select {
		case number := <-a.delivered:
			if number >= from {
				return nil
			}
		case err := <-a.failures:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
