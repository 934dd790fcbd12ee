package e2e_test

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
)

// books are the market as the model knows it: what each agent can spend, and of
// each task who has it: a worker by number, or one of the letters below.
type books struct {
	balances [4]int
	tasks    string
}

const (
	unposted  = '-'
	open      = 'o'
	completed = 'c'
	cancelled = 'x'
	worker    = '0' // and the agent's number
)

// model is the market on a page.
func (h *history) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any {
			b := books{tasks: strings.Repeat(string(unposted), len(h.tasks))}
			for i := range b.balances {
				b.balances[i] = purse
			}
			return b
		},
		Step: func(state, input, output any) (bool, any) {
			before, a, b := given[books](state), given[asked](input), given[said](output)
			after, refused, status := h.next(before, a)
			if refused != b.refused || a.verb == "task" && status != b.status {
				return false, before
			}
			return b.balance < 0 || b.balance == after.balances[a.agent], after
		},
	}
}

// next is what an operation makes of the books, and its answer.
func (h *history) next(b books, a asked) (after books, refused, status string) {
	if a.verb == "wallet" {
		return b, "", ""
	}
	if a.verb == "post" {
		if b.balances[a.agent] < a.budget {
			return b, "INSUFFICIENT_CREDITS", ""
		}
		b.balances[a.agent] -= a.budget
		return b.with(a.task, open), "", ""
	}
	task, now, me := h.tasks[a.task], b.tasks[a.task], byte(worker+a.agent)
	assigned := now >= worker && now < worker+byte(len(b.balances))
	switch {
	case a.verb == "task":
		names := map[byte]string{unposted: "none", open: "open", completed: "completed", cancelled: "cancelled"}
		if assigned {
			return b, "", "assigned"
		}
		return b, "", names[now]
	case a.verb == "accept" && task.poster == a.agent, a.verb == "cancel" && task.poster != a.agent, a.verb == "complete" && assigned && now != me:
		return b, "FORBIDDEN", ""
	case a.verb == "complete" && now == me:
		b.balances[a.agent] += task.budget * 9 / 10
		return b.with(a.task, completed), "", ""
	case a.verb == "accept" && now == open:
		return b.with(a.task, me), "", ""
	case a.verb == "cancel" && now == open:
		b.balances[a.agent] += task.budget
		return b.with(a.task, cancelled), "", ""
	default:
		return b, "CONFLICT", ""
	}
}

// with is the books with another letter for a task.
func (b books) with(task int, letter byte) books {
	tasks := []byte(b.tasks)
	tasks[task] = letter
	b.tasks = string(tasks)
	return b
}

// given is what the checker was given, as what it is.
func given[T any](value any) T {
	of, ok := value.(T)
	if !ok {
		panic(fmt.Sprintf("%T", value))
	}
	return of
}
