package database

import (
	"context"
	"time"
)

// restFactor is the ratio of rest to work in [RunThrottled].
const restFactor = 4

// RunThrottled calls step until it returns false. step does a small part of some
// background work. RunThrottled rests after each call, so that the work takes at
// most a fifth of the writer's time. It returns nil when ctx is done.
func RunThrottled(ctx context.Context, step func() (more bool, err error)) error {
	for {
		start := time.Now() //nolint:forbidigo // measures the process; the market's clock does not apply
		more, err := step()
		if err != nil || !more {
			return err
		}
		rest := time.NewTimer(restFactor * time.Since(start)) //nolint:forbidigo // as above
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return nil
		}
	}
}
