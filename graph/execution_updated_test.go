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

// executionBundle is an agent whose hires do what the test says.
type executionBundle struct {
	*bundle
	participants

	started chan func(string)           // a run begins: what it writes goes in here
	results chan func() executionResult // and ends so
}

type executionResult struct {
	outcome market.RunResult
	err     error
}

func newExecutionBundle(t *testing.T) *executionBundle {
	t.Helper()
	a := &executionBundle{bundle: newBundle(t), started: make(chan func(string), 10), results: make(chan func() executionResult, 10)}
	a.participants = a.bundle.registerParticipants(t)
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

// startExecution starts a hire and returns the task's id, and what takes the words of its
// model.
func (a *executionBundle) startExecution(t *testing.T) (id string, write func(string)) {
	t.Helper()
	out := a.mustQuery(t, a.poster, fmt.Sprintf(`mutation { startExecution(input: {agentId: %q, taskDescription: "D", budget: 2}) { task { id status } wallet { balance } } }`, a.worker.id))
	out.assertFields(t, "startExecution.task.status", "ASSIGNED", "startExecution.wallet.balance", "98")
	return out.get(t, "startExecution.task.id"), <-a.started
}

func executionSubscription(id string) string {
	return fmt.Sprintf(`subscription { executionUpdated(taskId: %q) { change text occurredAt task { id status result } } }`, id)
}

// collectChanges returns what events say: each change, and the text of each in one.
func collectChanges(s *clientSubscription, events []gqlResponse) (changes []string, text string) {
	s.t.Helper()
	var said strings.Builder
	for _, event := range events {
		change := event.get(s.t, "executionUpdated.change")
		if change == "WRITING" {
			said.WriteString(event.get(s.t, "executionUpdated.text"))
		} else if got := event.get(s.t, "executionUpdated.text"); got != "null" {
			s.t.Errorf("%s tells of the text %q", change, got)
		}
		if len(changes) == 0 || changes[len(changes)-1] != change {
			changes = append(changes, change)
		}
	}
	return changes, said.String()
}

// TestExecutionUpdated: both parties follow a hire on the model to its end, each from
// where it comes in, and hear all that was written by then once.
func TestExecutionUpdated(t *testing.T) {
	t.Parallel()
	for door, subscribe := range subscribeFuncs() {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			a := newExecutionBundle(t)
			id, write := a.startExecution(t)
			write("Packets ")
			early := subscribe(a.bundle, t, a.poster, executionSubscription(id))
			first := early.nextN(2) // started, and what was written before
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
					t.Errorf("heard %s with %q, ended with %q", got, text, code)
				}
				rest[len(rest)-1].assertFields(t, "executionUpdated.task.status", "COMPLETED", "executionUpdated.task.result", "Packets flow like streams")
			}
			after := subscribe(a.bundle, t, a.poster, executionSubscription(id))
			events, code := after.drain()
			if changes, _ := collectChanges(after, events); !slices.Equal(changes, []string{"SETTLED"}) || code != "" {
				t.Errorf("afterwards one hears %v, %q", changes, code)
			}
			a.waitForSubscriptions(t, 0)
		})
	}
}

// TestExecutionUpdated_promise: the promise is told, and then how it ended, whoever
// ended it.
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
		a.participants = a.bundle.registerParticipants(t)
		id, _ := a.startExecution(t)
		s := a.subscribeWebSocket(t, a.poster, executionSubscription(id))
		events := s.nextN(1)
		a.results <- promiseResult
		events = append(events, s.nextN(1)...)
		row.end(id)
		rest, code := s.drain()
		events = append(events, rest...)
		if changes, _ := collectChanges(s, events); strings.Join(changes, " ") != "STARTED PROMISED SETTLED" || code != "" {
			t.Errorf("%s: heard %v, %q", name, changes, code)
		}
		events[len(events)-1].assertFields(t, "executionUpdated.task.status", row.want)
	}
}

// TestExecutionUpdated_slowReader: a reader that does not read costs what was written
// once, and is told of it in few events when it does.
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
		t.Errorf("who comes late hears %d bytes at once, want %d", len(text), whole.Len())
	}
	a.results <- succeedWith("done")
	s.drain()
	a.WaitExecutions(t.Context())
	if watch := a.WatchText(id, nil); watch.TextAfter(0) != "" {
		t.Error("what was written is kept after the end")
	}
}

// TestExecutionUpdated_errors: who is not party to a hire does not learn that it
// is there.
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
		"a stranger without a key": {caller{}, id, models.Unauthenticated},
		"a stranger":               {a.stranger, id, models.NotFound},
		"no task":                  {a.poster, "nothing", models.NotFound},
		"a task that is no hire":   {a.poster, posted, models.InvalidInput},
	} {
		for door, subscribe := range subscribeFuncs() {
			if events, code := subscribe(a.bundle, t, row.by, executionSubscription(row.task)).drain(); len(events) > 0 || code != string(row.want) {
				t.Errorf("%s over %s: heard %v, %q", name, door, events, code)
			}
		}
	}
	a.results <- succeedWith("done")
	a.WaitExecutions(t.Context())
	a.waitForSubscriptions(t, 0)
}
