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

// acted is an agent whose hires do what the test says.
type acted struct {
	*bundle
	cast

	called chan func(string)       // a run begins: what it writes goes in here
	end    chan func() actedResult // and ends so
}

type actedResult struct {
	outcome market.Outcome
	err     error
}

func newActed(t *testing.T) *acted {
	t.Helper()
	a := &acted{bundle: open(t), called: make(chan func(string), 10), end: make(chan func() actedResult, 10)}
	a.cast = a.bundle.cast(t)
	a.Hired.Outcome = func(ctx context.Context, _ *models.Task, terms market.Terms) (market.Outcome, error) {
		a.called <- terms.Written
		select {
		case end := <-a.end:
			r := end()
			return r.outcome, r.err
		case <-ctx.Done():
			return market.Outcome{}, models.Errorf(models.ExecutionTimeout, "cut off")
		}
	}
	return a
}

func gives(result string) func() actedResult {
	return func() actedResult { return actedResult{outcome: market.Outcome{Result: result}} }
}

func promises() actedResult { return actedResult{outcome: market.Outcome{Promised: true}} }

// start starts a hire and returns the task's id, and what takes the words of its
// model.
func (a *acted) start(t *testing.T) (id string, write func(string)) {
	t.Helper()
	out := a.ok(t, a.poster, fmt.Sprintf(`mutation { startExecution(input: {agentId: %q, taskDescription: "D", budget: 2}) { task { id status } wallet { balance } } }`, a.worker.id))
	out.wants(t, "startExecution.task.status", "ASSIGNED", "startExecution.wallet.balance", "98")
	return out.get(t, "startExecution.task.id"), <-a.called
}

func hireStream(id string) string {
	return fmt.Sprintf(`subscription { executionUpdated(taskId: %q) { change text occurredAt task { id status result } } }`, id)
}

// heard returns what events say: each change, and the text of each in one.
func heard(s *feed, events []answer) (changes []string, text string) {
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
	for door, subscribe := range doors() {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			a := newActed(t)
			id, write := a.start(t)
			write("Packets ")
			early := subscribe(a.bundle, t, a.poster, hireStream(id))
			first := early.take(2) // started, and what was written before
			write("flow ")
			first = append(first, early.take(1)...)
			late := subscribe(a.bundle, t, a.worker, hireStream(id))
			second := late.take(2)
			write("like streams")
			first, second = append(first, early.take(1)...), append(second, late.take(1)...)
			a.end <- gives("Packets flow like streams")
			for name, s := range map[*feed][]answer{early: first, late: second} {
				rest, code := name.ended()
				changes, text := heard(name, append(s, rest...))
				if got := strings.Join(changes, " "); got != "STARTED WRITING SETTLED" || text != "Packets flow like streams" || code != "" {
					t.Errorf("heard %s with %q, ended with %q", got, text, code)
				}
				rest[len(rest)-1].wants(t, "executionUpdated.task.status", "COMPLETED", "executionUpdated.task.result", "Packets flow like streams")
			}
			after := subscribe(a.bundle, t, a.poster, hireStream(id))
			events, code := after.ended()
			if changes, _ := heard(after, events); !slices.Equal(changes, []string{"SETTLED"}) || code != "" {
				t.Errorf("afterwards one hears %v, %q", changes, code)
			}
			a.live(t, 0)
		})
	}
}

// TestExecutionUpdated_promise: the promise is told, and then how it ended, whoever
// ended it.
func TestExecutionUpdated_promise(t *testing.T) {
	t.Parallel()
	a := newActed(t)
	for name, row := range map[string]struct {
		end  func(id string)
		want string
	}{
		"kept": {func(id string) {
			a.ok(t, a.worker, fmt.Sprintf(`mutation { completeTask(input: {taskId: %q, result: "kept"}) { task { id } } }`, id))
		}, "COMPLETED"},
		"cancelled": {func(id string) {
			a.ok(t, a.poster, fmt.Sprintf(`mutation { cancelTask(input: {taskId: %q}) { wallet { balance } } }`, id)).wants(t, "cancelTask.wallet.balance", "100")
		}, "CANCELLED"},
	} {
		a.cast = a.bundle.cast(t)
		id, _ := a.start(t)
		s := a.socket(t, a.poster, hireStream(id))
		events := s.take(1)
		a.end <- promises
		events = append(events, s.take(1)...)
		row.end(id)
		rest, code := s.ended()
		events = append(events, rest...)
		if changes, _ := heard(s, events); strings.Join(changes, " ") != "STARTED PROMISED SETTLED" || code != "" {
			t.Errorf("%s: heard %v, %q", name, changes, code)
		}
		events[len(events)-1].wants(t, "executionUpdated.task.status", row.want)
	}
}

// TestExecutionUpdated_slow: a reader that does not read costs what was written
// once, and is told of it in few events when it does.
func TestExecutionUpdated_slow(t *testing.T) {
	t.Parallel()
	a := newActed(t)
	id, write := a.start(t)
	watched := 0
	watch := a.Watch(id, func() { watched++ })
	var whole strings.Builder
	for range 1000 {
		piece := strings.Repeat("é", 100) // 200 bytes
		write(piece)
		if whole.Len()+len(piece) <= 64<<10 {
			whole.WriteString(piece)
		}
	}
	if got := watch.After(0); got != whole.String() || watched != whole.Len()/200 {
		t.Errorf("%d bytes are kept after %d calls, want %d", len(got), watched, whole.Len())
	}
	watch.Close()
	s := a.socket(t, a.poster, hireStream(id))
	events := s.take(2)
	if _, text := heard(s, events); text != whole.String() {
		t.Errorf("who comes late hears %d bytes at once, want %d", len(text), whole.Len())
	}
	a.end <- gives("done")
	s.ended()
	a.Wait(t.Context())
	if watch := a.Watch(id, nil); watch.After(0) != "" {
		t.Error("what was written is kept after the end")
	}
}

// TestExecutionUpdated_refused: who is not party to a hire does not learn that it
// is there.
func TestExecutionUpdated_refused(t *testing.T) {
	t.Parallel()
	a := newActed(t)
	id, _ := a.start(t)
	posted := a.post(t, a.poster, "budget: 5")
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
		for door, subscribe := range doors() {
			if events, code := subscribe(a.bundle, t, row.by, hireStream(row.task)).ended(); len(events) > 0 || code != string(row.want) {
				t.Errorf("%s over %s: heard %v, %q", name, door, events, code)
			}
		}
	}
	a.end <- gives("done")
	a.Wait(t.Context())
	a.live(t, 0)
}
