package market_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/models"
)

// hiring is a market with one agent that hires another for 15 of its 100 credits.
type hiring struct {
	*markettest.Bundle
	poster, worker auth.Actor
	called         chan market.Terms // what the agent was run with
	answer         chan outcome      // what it answers
	runs           atomic.Int32
}

type outcome struct {
	market.Outcome
	err error
}

func newHiring(t *testing.T) *hiring {
	t.Helper()
	h := &hiring{Bundle: markettest.New(t), called: make(chan market.Terms, 100), answer: make(chan outcome, 100)}
	h.poster, h.worker = h.Agent(), h.Agent()
	h.Hired.Outcome = func(ctx context.Context, _ *models.Task, terms market.Terms) (market.Outcome, error) {
		h.runs.Add(1)
		h.called <- terms
		select {
		case o := <-h.answer:
			return o.Outcome, o.err
		case <-ctx.Done():
			return market.Outcome{}, models.Errorf(models.ExecutionTimeout, "cut off")
		}
	}
	return h
}

func done() outcome     { return outcome{Outcome: market.Outcome{Result: "done"}} }
func promised() outcome { return outcome{Outcome: market.Outcome{Promised: true}} }

// follows has the log of events read while the test runs.
func (h *hiring) follows(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Log.Follow(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// starts begins a hire, under a key unless that is empty.
func (h *hiring) starts(t *testing.T, key string) (market.TaskResult, error) {
	t.Helper()
	ctx := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: key})
	return h.StartExecution(ctx, h.poster, market.StartExecutionInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
}

// executes hires and waits, under a key unless that is empty.
func (h *hiring) executes(t *testing.T, key string) (market.TaskResult, error) {
	t.Helper()
	ctx := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: key})
	return h.Execute(ctx, h.poster, market.ExecuteInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
}

// promises starts a hire whose agent promises a result.
func (h *hiring) promises(t *testing.T) models.Task {
	t.Helper()
	h.answer <- promised()
	out, err := h.starts(t, "")
	must(t, err)
	h.Wait(t.Context())
	return out.Task
}

// wants holds the hire and both balances to what they must be, and the ledger to
// its laws.
func (h *hiring) wants(t *testing.T, task models.Task, status models.Status, poster, worker models.Credits) {
	t.Helper()
	wantStatus(t, h.Bundle, task, status)
	wantBalances(t, h.Bundle, h.poster, poster, 0)
	wantBalances(t, h.Bundle, h.worker, worker, 0)
	h.Verified()
}

// dies has this process seem gone to whoever settles for the dead.
func (h *hiring) dies(t *testing.T) {
	t.Helper()
	must(t, h.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("DELETE FROM replicas WHERE id = ?", h.DB.Replica()).Error
	}))
}

// waits has somebody execute under the key k and wait, for a minute at most, for an
// agent that has promised its result. It returns the task, and what the waiting
// gives.
func (h *hiring) waits(t *testing.T) (task models.Task, ended <-chan waited) {
	t.Helper()
	end := make(chan waited, 1)
	go func() {
		out, err := h.executes(t, "k")
		end <- waited{out, err}
	}()
	<-h.called
	h.answer <- promised()
	return h.promisedTask(t), end
}

type waited struct {
	market.TaskResult
	err error
}

// promisedTask waits for the one hire under way to be promised.
func (h *hiring) promisedTask(t *testing.T) models.Task {
	t.Helper()
	sub := h.Log.Subscribe(t.Context(), func(e *models.Event) bool { return e.Kind == models.TaskPromised }, new(int64))
	event, ok := <-sub.C
	if !ok {
		t.Fatal(sub.Err())
	}
	return *event.Task
}

func TestStartExecution(t *testing.T) {
	t.Parallel()
	t.Run("returns the task at once, and is settled though the caller is gone", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		ctx, hangUp := context.WithCancel(t.Context())
		out, err := h.StartExecution(ctx, h.poster, market.StartExecutionInput{
			AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15, DeadlineMinutes: new(90),
		})
		must(t, err)
		hangUp()
		if terms := <-h.called; !terms.Patient || terms.Deadline != models.At(h.Clock.Now().Add(90*time.Minute)) {
			t.Errorf("the agent is run with %+v", terms)
		}
		if out.Task.Status != models.Assigned || *out.Task.LeaseUntil != models.At(h.Clock.Now().Add(90*time.Minute)) || out.Wallet.Available != 85 {
			t.Errorf("got %+v", out)
		}
		h.wants(t, out.Task, models.Assigned, 85, 100)
		h.answer <- done()
		h.Wait(t.Context())
		h.wants(t, out.Task, models.Completed, 85, 113)
	})
	t.Run("gives the budget of a failure back", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		for _, failure := range []error{models.Errorf(models.ExecutionFailed, "no"), errors.New("broken")} {
			h.answer <- outcome{err: failure}
			out, err := h.starts(t, "")
			must(t, err)
			h.Wait(t.Context())
			h.wants(t, out.Task, models.Failed, 100, 100)
		}
	})
	t.Run("is refused before anybody is called", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		start := func(by auth.Actor, budget models.Credits, minutes *int) error {
			_, err := h.StartExecution(t.Context(), by, market.StartExecutionInput{
				AgentID: h.worker.AgentID, TaskDescription: "D", Budget: budget, DeadlineMinutes: minutes,
			})
			return err
		}
		wantCode(t, start(h.poster, 9, nil), models.InvalidInput)
		wantCode(t, start(h.poster, 15, new(0)), models.InvalidInput)
		wantCode(t, start(h.poster, 15, new(24*60+1)), models.InvalidInput)
		wantCode(t, start(h.poster, 101, nil), models.InsufficientFunds)
		wantCode(t, start(h.worker, 15, nil), models.Forbidden)
		if h.runs.Load() != 0 {
			t.Error("the agent was called")
		}
		wantBalances(t, h.Bundle, h.poster, 100, 0)
	})
	t.Run("with one key starts one, however many ask at once and after", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		ids := make([]string, 20)
		together(len(ids), func(i int) {
			out, err := h.starts(t, "k")
			if err != nil {
				t.Error(err)
			}
			ids[i] = out.Task.ID
		})
		h.answer <- done()
		h.Wait(t.Context())
		again, err := h.starts(t, "k")
		must(t, err)
		for _, id := range ids {
			if id != again.Task.ID {
				t.Errorf("got tasks %s and %s", again.Task.ID, id)
			}
		}
		if h.runs.Load() != 1 {
			t.Errorf("the agent ran %d times", h.runs.Load())
		}
		h.wants(t, again.Task, models.Completed, 85, 113)
	})
	t.Run("whose process died is refunded once, and what comes later pays nobody", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		out, err := h.starts(t, "k")
		must(t, err)
		<-h.called
		h.dies(t)
		must(t, h.Sweep(t.Context()))
		h.wants(t, out.Task, models.Failed, 100, 100)
		h.answer <- done()
		h.Wait(t.Context())
		_, err = h.Complete(t.Context(), h.worker, out.Task.ID, "late")
		wantCode(t, err, models.Conflict)
		again, err := h.starts(t, "k")
		if err != nil || again.Task.ID != out.Task.ID || h.runs.Load() != 1 {
			t.Errorf("the same key started %s (%v), %d runs", again.Task.ID, err, h.runs.Load())
		}
		h.wants(t, out.Task, models.Failed, 100, 100)
	})
}
