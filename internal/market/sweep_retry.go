package market

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"agentmarket.space/server/models"
)

const (
	// sweepRetryDelay is how long a task that could not be ended waits for the next try.
	// Each try can be a line in the log, and only an operator can fix the cause.
	sweepRetryDelay = time.Minute
	// maxSweepRetries bounds how many such tasks are remembered. Tasks beyond that are
	// tried in every sweep.
	maxSweepRetries = 1000
	// maxSweepErrors bounds how many of them one error names.
	maxSweepErrors = 10
)

// sweepRetries remembers the tasks that could not be ended, for example because a trigger
// rejects the change, and when to try each of them again.
type sweepRetries struct {
	mu  sync.Mutex
	due map[string]models.Time
}

// expire forgets the tasks that are due, and those postponed before the clock was set
// back.
func (r *sweepRetries) expire(now models.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.due, func(_ string, due models.Time) bool { return due <= now || due > now.Add(sweepRetryDelay) })
}

// postponed reports whether a task is to be skipped.
func (r *sweepRetries) postponed(taskID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.due[taskID]
	return ok
}

// postpone skips a task for sweepRetryDelay.
func (r *sweepRetries) postpone(taskID string, now models.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.due == nil {
		r.due = map[string]models.Time{}
	}
	if len(r.due) < maxSweepRetries {
		r.due[taskID] = now.Add(sweepRetryDelay)
	}
}

// sweepErrors collects the errors of one sweep.
type sweepErrors struct {
	first []error
	count int
}

func (e *sweepErrors) add(taskID string, err error) {
	if e.count++; len(e.first) < maxSweepErrors {
		e.first = append(e.first, fmt.Errorf("end task %s: %w", taskID, err))
	}
}

// err returns the first errors and the number of the others; nil if there are none.
func (e *sweepErrors) err() error {
	if more := e.count - len(e.first); more > 0 {
		return errors.Join(errors.Join(e.first...), fmt.Errorf("and %d more tasks", more))
	}
	return errors.Join(e.first...)
}
