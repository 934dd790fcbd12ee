package market

import (
	"context"
	"sync"
)

// maxBufferedText is how many bytes of what a model writes are kept to be read on the
// way: what 4096 tokens come to several times over. More is in the result only.
const maxBufferedText = 64 << 10

// executions are the hires that run in this process, and who watches some.
type executions struct {
	group sync.WaitGroup

	mu       sync.Mutex
	byTask   map[string]*execution // by task
	watchers map[string]map[*TextWatcher]struct{}
}

// execution is a hire that runs or is about to.
type execution struct {
	cancel    context.CancelFunc // nil until it begins
	cancelled bool
	text      []byte
}

// TextWatcher is a look at what a hire's model writes. It costs nothing while nothing is
// written, and holds nothing that was.
type TextWatcher struct {
	executions *executions
	taskID     string
	wake       func()
}

// register notes a run before its hire is committed, so that no cancellation comes too
// early for it. end ends it, whether it began or not.
func (r *executions) register(taskID string) {
	r.group.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byTask == nil {
		r.byTask = map[string]*execution{}
	}
	r.byTask[taskID] = &execution{}
}

// start returns the context of an expected run. It has ended already when the run was
// cut off meanwhile.
func (r *executions) start(ctx context.Context, taskID string) context.Context {
	ctx, stop := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	run := r.byTask[taskID]
	if run.cancel = stop; run.cancelled {
		stop()
	}
	return ctx
}

// finish ends a run, and its context with it.
func (r *executions) finish(taskID string) {
	r.cancel(taskID)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byTask, taskID)
	r.group.Done()
}

// isRunning reports whether a hire runs in this process, or is about to.
func (r *executions) isRunning(taskID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.byTask[taskID]
	return ok
}

// cancel cuts a run off, if it is one of this process, whether it has begun or not.
func (r *executions) cancel(taskID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run, ok := r.byTask[taskID]
	if !ok {
		return
	}
	if run.cancelled = true; run.cancel != nil {
		run.cancel()
	}
}

// publishText adds a piece to what a run has written and wakes who watches.
func (r *executions) publishText(taskID, piece string) {
	for _, watch := range r.bufferText(taskID, piece) {
		watch.wake()
	}
}

func (r *executions) bufferText(taskID, piece string) (watching []*TextWatcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run, ok := r.byTask[taskID]
	if !ok || len(run.text)+len(piece) > maxBufferedText {
		return nil
	}
	run.text = append(run.text, piece...)
	for watch := range r.watchers[taskID] {
		watching = append(watching, watch)
	}
	return watching
}

// TextWatcher has wake called when a hire's model has written more, for as long as it
// runs in this process. It must neither wait nor watch. Whoever watches closes it.
func (m *Market) WatchText(taskID string, wake func()) *TextWatcher {
	r := &m.executions
	w := &TextWatcher{executions: r, taskID: taskID, wake: wake}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watchers == nil {
		r.watchers = map[string]map[*TextWatcher]struct{}{}
	}
	if r.watchers[taskID] == nil {
		r.watchers[taskID] = map[*TextWatcher]struct{}{}
	}
	r.watchers[taskID][w] = struct{}{}
	return w
}

// TextAfter returns what was written after so many bytes, empty when nothing was or the
// run is over.
func (w *TextWatcher) TextAfter(bytes int) string {
	w.executions.mu.Lock()
	defer w.executions.mu.Unlock()
	run, ok := w.executions.byTask[w.taskID]
	if !ok || len(run.text) <= bytes {
		return ""
	}
	return string(run.text[bytes:])
}

// Close ends the watch.
func (w *TextWatcher) Close() {
	w.executions.mu.Lock()
	defer w.executions.mu.Unlock()
	if watchers := w.executions.watchers[w.taskID]; watchers != nil {
		if delete(watchers, w); len(watchers) == 0 {
			delete(w.executions.watchers, w.taskID)
		}
	}
}

// StopWaiting has nobody wait any more for a result that was promised: the server stops,
// and the hire goes on without it. It is called once.
func (m *Market) StopWaiting() { close(m.stopping) }

// WaitExecutions returns when no hire runs, or when ctx ends.
func (m *Market) WaitExecutions(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		m.executions.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
