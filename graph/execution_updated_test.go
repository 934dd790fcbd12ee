package graph

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// executionBundle is a bundle whose hires are controlled by the test.
type executionBundle struct {
	*bundle
	participants

	started chan func(string)           // gets a function that writes text, for each run
	results chan func() executionResult // ends a run
}

type executionResult struct {
	outcome market.RunResult
	err     error
}

func newExecutionBundle(t *testing.T) *executionBundle {
	t.Helper()
	a := &executionBundle{bundle: newBundle(t), started: make(chan func(string), 10), results: make(chan func() executionResult, 10)}
	a.participants = a.registerParticipants(t)
	a.FakeRunner.OutcomeFunc = func(ctx context.Context, _ *models.Task, terms market.RunOptions) (market.RunResult, error) {
		a.started <- terms.OnText
		select {
		case end := <-a.results:
			r := end()
			return r.outcome, r.err
		case <-ctx.Done():
			return market.RunResult{}, models.Errorf(models.ExecutionTimeout, "cut off")
		}
	}
	return a
}

func succeedWith(result string) func() executionResult {
	return func() executionResult { return executionResult{outcome: market.RunResult{Result: result}} }
}

func promiseResult() executionResult {
	return executionResult{outcome: market.RunResult{Promised: true}}
}

// startExecution starts a hire and returns the task's id and a function that writes text as
// its model.
func (a *executionBundle) startExecution(t *testing.T) (id string, write func(string)) {
	t.Helper()
	out := a.mustQuery(t, a.poster, fmt.Sprintf(`mutation { startExecution(input: {agentId: %q, taskDescription: "D", budget: 2}) { task { id status } wallet { balance } } }`, a.worker.id))
	out.assertFields(t, "startExecution.task.status", "ASSIGNED", "startExecution.wallet.balance", "98")
	return out.get(t, "startExecution.task.id"), <-a.started
}

func executionSubscription(id string) string {
	return fmt.Sprintf(`subscription { executionUpdated(taskId: %q) { change text occurredAt task { id status result } } }`, id)
}

// collectChanges returns the changes of events, without repeats, and their joined text.
func collectChanges(s *clientSubscription, events []gqlResponse) (changes []string, text string) {
	s.t.Helper()
	var written strings.Builder
	for _, event := range events {
		change := event.get(s.t, "executionUpdated.change")
		if change == "WRITING" {
			written.WriteString(event.get(s.t, "executionUpdated.text"))
		} else if got := event.get(s.t, "executionUpdated.text"); got != "null" {
			s.t.Errorf("%s has the text %q", change, got)
		}
		if len(changes) == 0 || changes[len(changes)-1] != change {
			changes = append(changes, change)
		}
	}
	return changes, written.String()
}

// TestExecutionUpdated checks that both parties can follow a hire to its end, from any
// time, and get all text once.
func TestExecutionUpdated(t *testing.T) {
	t.Parallel()
	for transport, subscribe := range subscribeFuncs() {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			a := newExecutionBundle(t)
			id, write := a.startExecution(t)
			write("Packets ")
			early := subscribe(a.bundle, t, a.poster, executionSubscription(id))
			first := early.nextN(2) // the start, and the text so far
			write("flow ")
			first = append(first, early.nextN(1)...)
			late := subscribe(a.bundle, t, a.worker, executionSubscription(id))
			second := late.nextN(2)
			write("like streams")
			first, second = append(first, early.nextN(1)...), append(second, late.nextN(1)...)
			a.results <- succeedWith("Packets flow like streams")
			for name, s := range map[*clientSubscription][]gqlResponse{early: first, late: second} {
				rest, code := name.drain()
				changes, text := collectChanges(name, append(s, rest...))
				if got := strings.Join(changes, " "); got != "STARTED WRITING SETTLED" || text != "Packets flow like streams" || code != "" {
					t.Errorf("got %s with %q, ended with %q", got, text, code)
				}
				rest[len(rest)-1].assertFields(t, "executionUpdated.task.status", "COMPLETED", "executionUpdated.task.result", "Packets flow like streams")
			}
			after := subscribe(a.bundle, t, a.poster, executionSubscription(id))
			events, code := after.drain()
			if changes, _ := collectChanges(after, events); !slices.Equal(changes, []string{"SETTLED"}) || code != "" {
				t.Errorf("after the end: got %v, %q", changes, code)
			}
			a.waitForSubscriptions(t, 0)
		})
	}
}

// TestExecutionUpdated_promise checks the changes of a hire whose agent promised its
// result.
func TestExecutionUpdated_promise(t *testing.T) {
	t.Parallel()
	a := newExecutionBundle(t)
	for name, row := range map[string]struct {
		end  func(id string)
		want string
	}{
		"kept": {func(id string) {
			a.mustQuery(t, a.worker, fmt.Sprintf(`mutation { completeTask(input: {taskId: %q, result: "kept"}) { task { id } } }`, id))
		}, "COMPLETED"},
		"cancelled": {func(id string) {
			a.mustQuery(t, a.poster, fmt.Sprintf(`mutation { cancelTask(input: {taskId: %q}) { wallet { balance } } }`, id)).assertFields(t, "cancelTask.wallet.balance", "100")
		}, "CANCELLED"},
	} {
		a.participants = a.registerParticipants(t)
		id, _ := a.startExecution(t)
		s := a.subscribeWebSocket(t, a.poster, executionSubscription(id))
		events := s.nextN(1)
		a.results <- promiseResult
		events = append(events, s.nextN(1)...)
		row.end(id)
		rest, code := s.drain()
		events = append(events, rest...)
		if changes, _ := collectChanges(s, events); strings.Join(changes, " ") != "STARTED PROMISED SETTLED" || code != "" {
			t.Errorf("%s: got %v, %q", name, changes, code)
		}
		events[len(events)-1].assertFields(t, "executionUpdated.task.status", row.want)
	}
}

// TestExecutionUpdated_slowReader checks that text is buffered once, up to its limit, and
// that a late subscriber gets it in one event.
func TestExecutionUpdated_slowReader(t *testing.T) {
	t.Parallel()
	a := newExecutionBundle(t)
	id, write := a.startExecution(t)
	watched := 0
	watch := a.WatchText(id, func() { watched++ })
	var whole strings.Builder
	for range 1000 {
		piece := strings.Repeat("é", 100) // 200 bytes
		write(piece)
		if whole.Len()+len(piece) <= 64<<10 {
			whole.WriteString(piece)
		}
	}
	if got := watch.TextAfter(0); got != whole.String() || watched != whole.Len()/200 {
		t.Errorf("%d bytes are kept after %d calls, want %d", len(got), watched, whole.Len())
	}
	watch.Close()
	s := a.subscribeWebSocket(t, a.poster, executionSubscription(id))
	events := s.nextN(2)
	if _, text := collectChanges(s, events); text != whole.String() {
		t.Errorf("a late subscriber gets %d bytes at once, want %d", len(text), whole.Len())
	}
	a.results <- succeedWith("done")
	s.drain()
	a.WaitExecutions(t.Context())
	if watch := a.WatchText(id, nil); watch.TextAfter(0) != "" {
		t.Error("the text is kept after the end")
	}
}

// TestExecutionUpdated_errors checks that only the parties learn that a hire exists.
func TestExecutionUpdated_errors(t *testing.T) {
	t.Parallel()
	a := newExecutionBundle(t)
	id, _ := a.startExecution(t)
	posted := a.postTask(t, a.poster, "budget: 5")
	for name, row := range map[string]struct {
		by   caller
		task string
		want models.Code
	}{
		"anonymous":       {caller{}, id, models.Unauthenticated},
		"a stranger":      {a.stranger, id, models.NotFound},
		"an unknown task": {a.poster, "nothing", models.NotFound},
		"not a hire":      {a.poster, posted, models.InvalidInput},
	} {
		for transport, subscribe := range subscribeFuncs() {
			if events, code := subscribe(a.bundle, t, row.by, executionSubscription(row.task)).drain(); len(events) > 0 || code != string(row.want) {
				t.Errorf("%s over %s: got %v, %q", name, transport, events, code)
			}
		}
	}
	a.results <- succeedWith("done")
	a.WaitExecutions(t.Context())
	a.waitForSubscriptions(t, 0)
}
