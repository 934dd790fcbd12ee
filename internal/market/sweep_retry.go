package market

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

const (
	// maxRememberedFailures is how many tasks are remembered that could not be ended: so many
	// are no accident, and one takes a hundred bytes.
	maxRememberedFailures = 1000
	// maxReportedErrors is how many of them one error names.
	maxReportedErrors = 10
	// sweepRetryDelay is how long one of them is left alone: nothing but somebody who looks
	// into it will help it, and each try is a line in the log.
	sweepRetryDelay = time.Minute
)

// dueTask is a task to be ended.
type dueTask struct {
	ID       string
	Origin   models.Origin
	Due      models.Time
	orphaned bool // because nobody runs it, not because its time has come
}

// sweep is one pass over what is to be ended.
type sweep struct {
	market    *Market
	lastTried map[string]models.Time // what sweeps before could not end, and when that was tried last
	deferred  []dueTask              // those of them that are to be tried again: they come last
	failed    map[string]models.Time // the same after this one
	errs      []error                // why, of the first
	failures  int                    // how many it cannot end
}

// process ends a task, unless that was tried in vain: then it is left alone for a while, and
// waits until the others have had their turn.
func (s *sweep) process(ctx context.Context, task dueTask) {
	tried, inVain := s.lastTried[task.ID]
	if !inVain {
		s.tryEnd(ctx, task)
		return
	}
	if now := s.market.now(); tried <= now && now < tried.Add(sweepRetryDelay) {
		s.failed[task.ID] = tried
		return
	}
	s.deferred = append(s.deferred, task)
}

// tryEnd ends a task, once in a sweep.
func (s *sweep) tryEnd(ctx context.Context, task dueTask) {
	if _, tried := s.failed[task.ID]; tried || ctx.Err() != nil {
		return
	}
	ended := false
	err := s.market.deps.DB.Write(ctx, func(tx *database.Tx) (err error) {
		ended, err = s.market.endTask(tx, task)
		return err
	})
	if err == nil && ended && task.orphaned {
		s.market.deps.Logger.WarnContext(ctx, "refunded a hire that was cut off", slog.String("task_id", task.ID))
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	if s.failures++; len(s.failed) < maxRememberedFailures {
		s.failed[task.ID] = s.market.now()
	}
	if len(s.errs) < maxReportedErrors {
		s.errs = append(s.errs, fmt.Errorf("end task %s: %w", task.ID, err))
	}
}

// err is what could not be ended, and why.
func (s *sweep) err() error {
	if more := s.failures - len(s.errs); more > 0 {
		return errors.Join(errors.Join(s.errs...), fmt.Errorf("and %d more tasks", more))
	}
	return errors.Join(s.errs...)
}

// sweepRetries are the tasks that sweeps could not end, and when that was tried last.
type sweepRetries struct {
	mu        sync.Mutex
	lastTried map[string]models.Time
}

func (u *sweepRetries) load() map[string]models.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lastTried
}

// save remembers what a sweep could not end, and of one that ran out of time what the
// sweep before it could not: it may not have come to that.
func (u *sweepRetries) save(ctx context.Context, s *sweep) {
	for id, tried := range s.lastTried {
		if _, again := s.failed[id]; !again && ctx.Err() != nil && len(s.failed) < maxRememberedFailures {
			s.failed[id] = tried
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lastTried = s.failed
}
