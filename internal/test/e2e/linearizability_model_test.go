package e2e_test

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
)

// marketState is the state of the model: the balance of each agent, and one byte for each
// task, its worker's number or a letter below.
type marketState struct {
	balances [4]int
	tasks    string
}

const (
	stateUnposted  = '-'
	stateOpen      = 'o'
	stateCompleted = 'c'
	stateCancelled = 'x'
	stateAssigned  = '0' // plus the number of the agent
)

// model is a model of the market for porcupine.
func (h *history) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any {
			b := marketState{tasks: strings.Repeat(string(stateUnposted), len(h.tasks))}
			for i := range b.balances {
				b.balances[i] = initialCredits
			}
			return b
		},
		Step: func(state, input, output any) (bool, any) {
			before, a, b := mustCast[marketState](state), mustCast[operationInput](input), mustCast[operationOutput](output)
			after, refused, status := h.apply(before, a)
			if refused != b.errorCode || a.verb == "task" && status != b.status {
				return false, before
			}
			return b.balance < 0 || b.balance == after.balances[a.agent], after
		},
	}
}

// apply returns the state after an operation and the operation's result.
func (h *history) apply(b marketState, a operationInput) (after marketState, refused, status string) {
	if a.verb == "wallet" {
		return b, "", ""
	}
	if a.verb == "post" {
		if b.balances[a.agent] < a.budget {
			return b, "INSUFFICIENT_CREDITS", ""
		}
		b.balances[a.agent] -= a.budget
		return b.withTask(a.task, stateOpen), "", ""
	}
	task, now, me := h.tasks[a.task], b.tasks[a.task], byte(stateAssigned+a.agent)
	assigned := now >= stateAssigned && now < stateAssigned+byte(len(b.balances))
	switch {
	case a.verb == "task":
		names := map[byte]string{stateUnposted: "none", stateOpen: "open", stateCompleted: "completed", stateCancelled: "cancelled"}
		if assigned {
			return b, "", "assigned"
		}
		return b, "", names[now]
	case a.verb == "accept" && task.poster == a.agent, a.verb == "cancel" && task.poster != a.agent, a.verb == "complete" && assigned && now != me:
		return b, "FORBIDDEN", ""
	case a.verb == "complete" && now == me:
		b.balances[a.agent] += task.budget * 9 / 10
		return b.withTask(a.task, stateCompleted), "", ""
	case a.verb == "accept" && now == stateOpen:
		return b.withTask(a.task, me), "", ""
	case a.verb == "cancel" && now == stateOpen:
		b.balances[a.agent] += task.budget
		return b.withTask(a.task, stateCancelled), "", ""
	default:
		return b, "CONFLICT", ""
	}
}

// withTask returns the state with another byte for a task.
func (b marketState) withTask(task int, letter byte) marketState {
	tasks := []byte(b.tasks)
	tasks[task] = letter
	b.tasks = string(tasks)
	return b
}

// mustCast converts a value of the checker to its type.
func mustCast[T any](value any) T {
	of, ok := value.(T)
	if !ok {
		panic(fmt.Sprintf("%T", value))
	}
	return of
}
