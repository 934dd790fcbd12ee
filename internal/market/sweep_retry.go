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
// rejects the change, and when each of them was tried last.
type sweepRetries struct {
	mu        sync.Mutex
	lastTried map[string]models.Time
}

// has reports whether a task could not be ended.
func (r *sweepRetries) has(taskID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.lastTried[taskID]
	return ok
}

// isPostponed reports whether a task was tried less than sweepRetryDelay ago.
func (r *sweepRetries) isPostponed(taskID string, now models.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	tried, ok := r.lastTried[taskID]
	return ok && tried <= now && now < tried.Add(sweepRetryDelay) // not if the clock was set back
}

// postpone delays the next try of a task by sweepRetryDelay.
func (r *sweepRetries) postpone(taskID string, now models.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lastTried == nil {
		r.lastTried = map[string]models.Time{}
	}
	if _, known := r.lastTried[taskID]; known || len(r.lastTried) < maxSweepRetries {
		r.lastTried[taskID] = now
	}
}

// retain forgets all tasks except those in found.
func (r *sweepRetries) retain(found map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.lastTried, func(id string, _ models.Time) bool { return !found[id] })
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
