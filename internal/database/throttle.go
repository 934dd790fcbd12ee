package database

import (
	"context"
	"time"
)

// restFactor is for how many times as long as a step took [RunThrottled] rests after it.
const restFactor = 4

// RunThrottled runs step, which does a little of what is not urgent, for as long as it
// reports that there is more. It rests in between, so that a fifth of the writer's
// time is the most that it takes, and ends early, without an error, with ctx.
func RunThrottled(ctx context.Context, step func() (more bool, err error)) error {
	for {
		began := time.Now() //nolint:forbidigo // it is about this process, not about the market
		more, err := step()
		if err != nil || !more {
			return err
		}
		rest := time.NewTimer(restFactor * time.Since(began)) //nolint:forbidigo // as above
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return nil
		}
	}
}
