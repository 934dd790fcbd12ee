package market

import (
	"context"
	"sync"
)

// maxBufferedText bounds the bytes of generated text that are buffered for watchers,
// several times the size of 4096 tokens. Text beyond it is in the result only.
const maxBufferedText = 64 << 10

// executions tracks the hires that run in this process, and the watchers of their text.
type executions struct {
	group sync.WaitGroup

	mu       sync.Mutex
	byTask   map[string]*execution
	watchers map[string]map[*TextWatcher]struct{}
}

// execution is a hire that runs or is about to run.
type execution struct {
	cancel    context.CancelFunc // nil until it starts
	cancelled bool
	text      []byte
}

// TextWatcher reads the text that the model of a running hire generates. The text is
// buffered once per hire, not per watcher.
type TextWatcher struct {
	executions *executions
	taskID     string
	wake       func()
}

// register adds an execution before its hire is committed, so that a cancellation right
// after the commit finds it. Every registered execution must be finished.
func (r *executions) register(taskID string) {
	r.group.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byTask == nil {
		r.byTask = map[string]*execution{}
	}
	r.byTask[taskID] = &execution{}
}

// start returns the context of a registered execution. The context is cancelled already
// if the execution was.
func (r *executions) start(ctx context.Context, taskID string) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	run := r.byTask[taskID]
	if run.cancel = cancel; run.cancelled {
		cancel()
	}
	return ctx
}

// finish removes an execution and cancels its context.
func (r *executions) finish(taskID string) {
	r.cancel(taskID)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byTask, taskID)
	r.group.Done()
}

// isRunning reports whether a hire runs in this process or is about to run.
func (r *executions) isRunning(taskID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.byTask[taskID]
	return ok
}

// cancel cancels an execution, started or not, if it is in this process.
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

// publishText appends a piece of text to an execution and wakes its watchers.
func (r *executions) publishText(taskID, piece string) {
	for _, watcher := range r.bufferText(taskID, piece) {
		watcher.wake()
	}
}

func (r *executions) bufferText(taskID, piece string) (watchers []*TextWatcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run, ok := r.byTask[taskID]
	if !ok || len(run.text)+len(piece) > maxBufferedText {
		return nil
	}
	run.text = append(run.text, piece...)
	for watcher := range r.watchers[taskID] {
		watchers = append(watchers, watcher)
	}
	return watchers
}

// WatchText returns a watcher that calls wake when the model of a hire has generated more
// text, while the hire runs in this process. Wake must not block and must not use the
// watcher. The caller closes the watcher.
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

// TextAfter returns the text after the first n bytes. It is empty if there is none, or if
// the hire does not run here any more.
func (w *TextWatcher) TextAfter(n int) string {
	w.executions.mu.Lock()
	defer w.executions.mu.Unlock()
	run, ok := w.executions.byTask[w.taskID]
	if !ok || len(run.text) <= n {
		return ""
	}
	return string(run.text[n:])
}

// Close removes the watcher.
func (w *TextWatcher) Close() {
	w.executions.mu.Lock()
	defer w.executions.mu.Unlock()
	if watchers := w.executions.watchers[w.taskID]; watchers != nil {
		if delete(watchers, w); len(watchers) == 0 {
			delete(w.executions.watchers, w.taskID)
		}
	}
}

// StopWaiting makes calls of Execute that wait for a promised result return at once, for a
// server that shuts down. The hires go on. Call it once.
func (m *Market) StopWaiting() { close(m.stopping) }

// WaitExecutions blocks until no hire runs in this process or ctx is done.
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
