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
	// mostUnended is how many tasks are remembered that could not be ended: so many
	// are no accident, and one takes a hundred bytes.
	mostUnended = 1000
	// mostNamed is how many of them one error names.
	mostNamed = 10
	// againAfter is how long one of them is left alone: nothing but somebody who looks
	// into it will help it, and each try is a line in the log.
	againAfter = time.Minute
)

// ending is a task to be ended.
type ending struct {
	ID     string
	Origin models.Origin
	Due    models.Time
	dead   bool // because nobody runs it, not because its time has come
}

// sweep is one pass over what is to be ended.
type sweep struct {
	market *Market
	before map[string]models.Time // what sweeps before could not end, and when that was tried last
	held   []ending               // those of them that are to be tried again: they come last
	failed map[string]models.Time // the same after this one
	errs   []error                // why, of the first
	times  int                    // how many it cannot end
}

// offer ends a task, unless that was tried in vain: then it is left alone for a while, and
// waits until the others have had their turn.
func (s *sweep) offer(ctx context.Context, task ending) {
	tried, inVain := s.before[task.ID]
	if !inVain {
		s.try(ctx, task)
		return
	}
	if now := s.market.now(); tried <= now && now < tried.Add(againAfter) {
		s.failed[task.ID] = tried
		return
	}
	s.held = append(s.held, task)
}

// try ends a task, once in a sweep.
func (s *sweep) try(ctx context.Context, task ending) {
	if _, tried := s.failed[task.ID]; tried || ctx.Err() != nil {
		return
	}
	ended := false
	err := s.market.DB.Write(ctx, func(tx *database.Tx) (err error) {
		ended, err = s.market.end(tx, task)
		return err
	})
	if err == nil && ended && task.dead {
		s.market.Logger.WarnContext(ctx, "refunded a hire that was cut off", slog.String("task_id", task.ID))
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	if s.times++; len(s.failed) < mostUnended {
		s.failed[task.ID] = s.market.now()
	}
	if len(s.errs) < mostNamed {
		s.errs = append(s.errs, fmt.Errorf("end task %s: %w", task.ID, err))
	}
}

// err is what could not be ended, and why.
func (s *sweep) err() error {
	if more := s.times - len(s.errs); more > 0 {
		return errors.Join(errors.Join(s.errs...), fmt.Errorf("and %d more tasks", more))
	}
	return errors.Join(s.errs...)
}

// unended are the tasks that sweeps could not end, and when that was tried last.
type unended struct {
	mu    sync.Mutex
	tried map[string]models.Time
}

func (u *unended) last() map[string]models.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.tried
}

// note remembers what a sweep could not end, and of one that ran out of time what the
// sweep before it could not: it may not have come to that.
func (u *unended) note(ctx context.Context, s *sweep) {
	for id, tried := range s.before {
		if _, again := s.failed[id]; !again && ctx.Err() != nil && len(s.failed) < mostUnended {
			s.failed[id] = tried
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tried = s.failed
}
