package cache

import (
	"context"
	"sync"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// window is a period in which every read of the database returns the same: nothing is
// written and no task changes with time.
type window struct {
	version   int64       // of the database
	exclusive bool        // no other process writes to the database
	expiresAt models.Time // the first deadline of a task
}

// windows finds the current window. It queries the next deadline again after a write,
// when the deadline has passed, or when the clock was set back.
type windows struct {
	options *Options

	mu       sync.Mutex
	current  window
	loadedAt models.Time
}

// now returns the current window. Reads after the call see the data of that window, or
// of a later one if another call returns a different window afterwards.
func (w *windows) now(ctx context.Context) (window, error) {
	version, exclusive := w.options.DB.DataVersion()
	if !exclusive {
		return window{}, nil
	}
	now := models.NewTime(w.options.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.current; c.exclusive && c.version == version && w.loadedAt <= now && now < c.expiresAt {
		return c, nil
	}
	next := window{version: version, exclusive: true}
	var err error
	if next.expiresAt, err = w.options.NextDeadline(ctx, now); err != nil {
		return window{}, err
	}
	w.current, w.loadedAt = next, now
	return next, nil
}

// readSet is the data that a response depends on, and the window in which it was read.
type readSet struct {
	window window
	reads  *database.ReadSet
}

// track returns a context that records reads in a readSet.
func (w *windows) track(ctx context.Context, current window) (context.Context, *readSet) {
	ctx, reads := w.options.DB.TrackReads(ctx)
	return ctx, &readSet{window: current, reads: reads}
}

// valid reports whether the same reads would return the same data now.
func (w *windows) valid(ctx context.Context, s *readSet) bool {
	if s.reads.ReadsWholeStore() {
		current, err := w.now(ctx)
		return err == nil && current == s.window
	}
	return s.reads.Unchanged(models.NewTime(w.options.Now()))
}
