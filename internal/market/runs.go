package market

import (
	"context"
	"sync"
)

// maxWritten is how many bytes of what a model writes are kept to be read on the
// way: what 4096 tokens come to several times over. More is in the result only.
const maxWritten = 64 << 10

// runs are the hires that run in this process, and who watches some.
type runs struct {
	group sync.WaitGroup

	mu       sync.Mutex
	live     map[string]*live // by task
	watchers map[string]map[*Watch]struct{}
}

// live is a hire that runs or is about to.
type live struct {
	stop    context.CancelFunc // nil until it begins
	stopped bool
	written []byte
}

// Watch is a look at what a hire's model writes. It costs nothing while nothing is
// written, and holds nothing that was.
type Watch struct {
	runs   *runs
	taskID string
	wake   func()
}

// expect notes a run before its hire is committed, so that no cancellation comes too
// early for it. end ends it, whether it began or not.
func (r *runs) expect(taskID string) {
	r.group.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil {
		r.live = map[string]*live{}
	}
	r.live[taskID] = &live{}
}

// begin returns the context of an expected run. It has ended already when the run was
// cut off meanwhile.
func (r *runs) begin(ctx context.Context, taskID string) context.Context {
	ctx, stop := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	run := r.live[taskID]
	if run.stop = stop; run.stopped {
		stop()
	}
	return ctx
}

// end ends a run, and its context with it.
func (r *runs) end(taskID string) {
	r.stop(taskID)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, taskID)
	r.group.Done()
}

// runs reports whether a hire runs in this process, or is about to.
func (r *runs) runs(taskID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.live[taskID]
	return ok
}

// stop cuts a run off, if it is one of this process, whether it has begun or not.
func (r *runs) stop(taskID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run, ok := r.live[taskID]
	if !ok {
		return
	}
	if run.stopped = true; run.stop != nil {
		run.stop()
	}
}

// wrote adds a piece to what a run has written and wakes who watches.
func (r *runs) wrote(taskID, piece string) {
	for _, watch := range r.add(taskID, piece) {
		watch.wake()
	}
}

func (r *runs) add(taskID, piece string) (watching []*Watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run, ok := r.live[taskID]
	if !ok || len(run.written)+len(piece) > maxWritten {
		return nil
	}
	run.written = append(run.written, piece...)
	for watch := range r.watchers[taskID] {
		watching = append(watching, watch)
	}
	return watching
}

// Watch has wake called when a hire's model has written more, for as long as it
// runs in this process. It must neither wait nor watch. Whoever watches closes it.
func (m *Market) Watch(taskID string, wake func()) *Watch {
	r := &m.running
	w := &Watch{runs: r, taskID: taskID, wake: wake}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watchers == nil {
		r.watchers = map[string]map[*Watch]struct{}{}
	}
	if r.watchers[taskID] == nil {
		r.watchers[taskID] = map[*Watch]struct{}{}
	}
	r.watchers[taskID][w] = struct{}{}
	return w
}

// After returns what was written after so many bytes, empty when nothing was or the
// run is over.
func (w *Watch) After(bytes int) string {
	w.runs.mu.Lock()
	defer w.runs.mu.Unlock()
	run, ok := w.runs.live[w.taskID]
	if !ok || len(run.written) <= bytes {
		return ""
	}
	return string(run.written[bytes:])
}

// Close ends the watch.
func (w *Watch) Close() {
	w.runs.mu.Lock()
	defer w.runs.mu.Unlock()
	if watchers := w.runs.watchers[w.taskID]; watchers != nil {
		if delete(watchers, w); len(watchers) == 0 {
			delete(w.runs.watchers, w.taskID)
		}
	}
}

// Hurry has nobody wait any more for a result that was promised: the server stops,
// and the hire goes on without it. It is called once.
func (m *Market) Hurry() { close(m.hurried) }

// Wait returns when no hire runs, or when ctx ends.
func (m *Market) Wait(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		m.running.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
