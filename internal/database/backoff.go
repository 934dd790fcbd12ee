package database

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
)

// backoff is the delay between the attempts of an operation. It starts at
// minBackoff and doubles up to maxBackoff. The zero value is ready to use.
type backoff struct{ delay time.Duration }

// wait sleeps for the next delay, with a jitter of 50 percent. It returns false
// when ctx is done or stop is closed first. stop can be nil.
func (b *backoff) wait(ctx context.Context, stop <-chan struct{}) bool {
	b.delay = min(max(2*b.delay, minBackoff), maxBackoff)
	timer := time.NewTimer(b.delay/2 + rand.N(b.delay)) //nolint:gosec // jitter needs no secure randomness
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-stop:
		return false
	}
}

// reset makes the next delay minBackoff.
func (b *backoff) reset() { b.delay = 0 }
