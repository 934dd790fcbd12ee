package market_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/database"
	"agentmarket.space/server/internal/engines"
	"agentmarket.space/server/internal/markettest"
	"agentmarket.space/server/market"
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
	return hiringAt(markettest.New(t))
}

func hiringAt(b *markettest.Bundle) *hiring {
	h := &hiring{Bundle: b, called: make(chan market.Terms, 100), answer: make(chan outcome, 100)}
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
		must(t, h.SettleDead(t.Context()))
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

func TestPromise(t *testing.T) {
	t.Parallel()
	t.Run("is kept with the agent's own key, once", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		task := h.promises(t)
		h.wants(t, task, models.Assigned, 85, 100)
		_, err := h.Complete(t.Context(), h.poster, task.ID, "r")
		wantCode(t, err, models.Forbidden)
		_, err = h.Complete(t.Context(), h.Agent(), task.ID, "r")
		wantCode(t, err, models.NotFound)
		var paid atomic.Int32
		together(20, func(int) {
			out, err := h.Complete(t.Context(), h.worker, task.ID, "r")
			if err == nil {
				paid.Add(1)
				if out.Wallet.AgentID != h.worker.AgentID || out.Wallet.Available != 113 {
					t.Errorf("the worker was shown %+v", out.Wallet)
				}
				return
			}
			wantCode(t, err, models.Conflict)
		})
		if paid.Load() != 1 {
			t.Errorf("paid %d times", paid.Load())
		}
		h.wants(t, task, models.Completed, 85, 113)
	})
	t.Run("outlives the process it was given to", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		task := h.promises(t)
		h.dies(t)
		must(t, h.SettleDead(t.Context()))
		h.wants(t, task, models.Assigned, 85, 100)
		_, err := h.Complete(t.Context(), h.worker, task.ID, "r")
		must(t, err)
		h.wants(t, task, models.Completed, 85, 113)
	})
	t.Run("that is broken gives the budget back at the deadline", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		task := h.promises(t)
		h.Clock.Advance(time.Hour - time.Second)
		swept(t, h.Bundle)
		h.wants(t, task, models.Assigned, 85, 100)
		h.Clock.Advance(time.Second)
		_, err := h.Complete(t.Context(), h.worker, task.ID, "late, though nobody swept")
		wantCode(t, err, models.Conflict)
		swept(t, h.Bundle)
		swept(t, h.Bundle)
		h.wants(t, task, models.Failed, 100, 100)
	})
	t.Run("that cannot be kept is given back", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		h.follows(t)
		ended := make(chan error, 1)
		go func() {
			_, err := h.executes(t, "k")
			ended <- err
		}()
		<-h.called
		h.answer <- promised()
		task := h.promisedTask(t)
		_, err := h.Release(t.Context(), h.poster, task.ID)
		wantCode(t, err, models.Forbidden)
		out, err := h.Release(t.Context(), h.worker, task.ID)
		if err != nil || out.Task.Status != models.Failed || out.Wallet.Available != 100 {
			t.Errorf("got %+v, %v", out, err)
		}
		wantCode(t, <-ended, models.ExecutionFailed)
		_, err = h.executes(t, "k")
		wantCode(t, err, models.ExecutionFailed)
		_, err = h.Complete(t.Context(), h.worker, task.ID, "after all")
		wantCode(t, err, models.Conflict)
		_, err = h.Extend(t.Context(), h.worker, task.ID, nil)
		wantCode(t, err, models.Conflict)
		h.wants(t, task, models.Failed, 100, 100)
	})
	t.Run("can be kept before the endpoint has even answered", func(t *testing.T) {
		t.Parallel()
		for _, answers := range []outcome{promised(), done(), {err: models.Errorf(models.ExecutionFailed, "no")}} {
			h := newHiring(t)
			out, err := h.starts(t, "")
			must(t, err)
			<-h.called
			_, err = h.Complete(t.Context(), h.worker, out.Task.ID, "quick")
			must(t, err)
			h.answer <- answers
			h.Wait(t.Context())
			h.wants(t, out.Task, models.Completed, 85, 113)
		}
	})
	t.Run("or the deadline: of many who complete and sweep at once one wins", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		for range 10 {
			poster, _ := h.Balances(h.poster)
			worker, _ := h.Balances(h.worker)
			task := h.promises(t)
			h.Clock.Advance(time.Hour - time.Millisecond)
			var kept atomic.Int32
			together(8, func(i int) {
				switch i {
				case 0:
					h.Clock.Advance(time.Millisecond)
				case 1, 2, 3:
					if err := h.Sweep(t.Context()); err != nil {
						t.Error(err)
					}
				default:
					if _, err := h.Complete(t.Context(), h.worker, task.ID, "r"); err == nil {
						kept.Add(1)
					}
				}
			})
			swept(t, h.Bundle)
			switch kept.Load() {
			case 0:
				h.wants(t, task, models.Failed, poster, worker)
			case 1:
				h.wants(t, task, models.Completed, poster-15, worker+13)
			default:
				t.Fatalf("completed %d times", kept.Load())
			}
			if poster < 30 {
				h.poster = h.Agent()
			}
		}
	})
}

// TestExecute_promise: who waits gets the result when the promise is kept in time.
// The end of waiting fails nothing; a retry with the same key finds the hire as it
// is, and never makes another.
func TestExecute_promise(t *testing.T) {
	t.Parallel()
	t.Run("kept while one waits", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		h.follows(t)
		h.Settings.ExecuteTimeout = time.Minute // more than the test has patience for
		var out market.TaskResult
		ended := make(chan error, 1)
		go func() {
			var err error
			out, err = h.executes(t, "k")
			ended <- err
		}()
		<-h.called
		h.answer <- promised()
		task := h.promisedTask(t)
		if *task.LeaseUntil != models.At(h.Clock.Now().Add(time.Hour)) {
			t.Errorf("the promise is due at %v", *task.LeaseUntil)
		}
		_, err := h.Complete(t.Context(), h.worker, task.ID, "kept")
		must(t, err)
		if err := <-ended; err != nil || *out.Task.Result != "kept" || out.Wallet.Available != 85 {
			t.Errorf("who waited got %+v, %v", out, err)
		}
		again, err := h.executes(t, "k")
		if err != nil || *again.Task.Result != "kept" || h.runs.Load() != 1 {
			t.Errorf("the same key got %+v, %v", again, err)
		}
		h.wants(t, task, models.Completed, 85, 113)
	})
	t.Run("kept after that", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		h.follows(t)
		h.Settings.ExecuteTimeout = time.Millisecond
		h.answer <- promised()
		out, err := h.executes(t, "k")
		if err != nil || out.Task.Status != models.Assigned || out.Wallet.Available != 85 {
			t.Fatalf("the end of waiting gave %+v, %v", out, err)
		}
		again, err := h.executes(t, "k")
		if err != nil || again.Task.ID != out.Task.ID || again.Task.Status != models.Assigned {
			t.Errorf("the same key got %+v, %v", again, err)
		}
		_, err = h.Complete(t.Context(), h.worker, out.Task.ID, "kept")
		must(t, err)
		again, err = h.executes(t, "k")
		if err != nil || again.Task.ID != out.Task.ID || *again.Task.Result != "kept" || h.runs.Load() != 1 {
			t.Errorf("the same key got %+v, %v after %d runs", again, err, h.runs.Load())
		}
		h.wants(t, out.Task, models.Completed, 85, 113)
	})
	t.Run("not waited for when the server stops", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		h.Hurry()
		h.answer <- promised()
		out, err := h.executes(t, "")
		if err != nil || out.Task.Status != models.Assigned {
			t.Errorf("got %+v, %v", out, err)
		}
		h.wants(t, out.Task, models.Assigned, 85, 100)
	})
	t.Run("broken", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		h.follows(t)
		h.Settings.ExecuteTimeout = time.Millisecond
		h.answer <- promised()
		out, err := h.executes(t, "k")
		must(t, err)
		h.Clock.Advance(time.Hour)
		swept(t, h.Bundle)
		_, err = h.executes(t, "k")
		wantCode(t, err, models.ExecutionTimeout)
		h.wants(t, out.Task, models.Failed, 100, 100)
	})
}

// promisedTask waits for the one hire under way to be promised.
func (h *hiring) promisedTask(t *testing.T) (task models.Task) {
	t.Helper()
	sub := h.Log.Subscribe(t.Context(), func(e *models.Event) bool { return e.Kind == models.TaskPromised }, new(int64))
	event, ok := <-sub.C
	if !ok {
		t.Fatal(sub.Err())
	}
	return *event.Task
}

// TestCancel_hire: who hired takes it back as long as it is under way. Of a
// cancellation and what ends a hire otherwise exactly one wins.
func TestCancel_hire(t *testing.T) {
	t.Parallel()
	t.Run("that is promised", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		task := h.promises(t)
		_, err := h.Cancel(t.Context(), h.worker, task.ID)
		wantCode(t, err, models.Forbidden)
		_, err = h.Cancel(t.Context(), h.Agent(), task.ID)
		wantCode(t, err, models.NotFound)
		out, err := h.Cancel(t.Context(), h.poster, task.ID)
		if err != nil || out.Task.Status != models.Cancelled || out.Wallet.Available != 100 {
			t.Errorf("got %+v, %v", out, err)
		}
		_, err = h.Complete(t.Context(), h.worker, task.ID, "late")
		wantCode(t, err, models.Conflict)
		_, err = h.Cancel(t.Context(), h.poster, task.ID)
		wantCode(t, err, models.Conflict)
		h.Clock.Advance(2 * time.Hour)
		swept(t, h.Bundle)
		h.wants(t, task, models.Cancelled, 100, 100)
	})
	t.Run("that runs, which is cut off", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		out, err := h.starts(t, "k")
		must(t, err)
		<-h.called
		_, err = h.Cancel(t.Context(), h.poster, out.Task.ID)
		must(t, err)
		h.Wait(t.Context()) // nothing answers: it ends because it is cut off
		h.wants(t, out.Task, models.Cancelled, 100, 100)
	})
	t.Run("that runs on the model at another replica, which is cut off too", func(t *testing.T) {
		t.Parallel()
		if !engines.OnPostgres() {
			t.Skip("SQLite has no replicas")
		}
		address := engines.Address(t)
		h := hiringAt(markettest.NewAt(t, address))
		h.follows(t)
		must(t, h.prompted(t, h.worker))
		out, err := h.starts(t, "")
		must(t, err)
		<-h.called
		_, err = markettest.NewAt(t, address).Cancel(t.Context(), h.poster, out.Task.ID)
		must(t, err)
		h.Wait(t.Context())
		h.wants(t, out.Task, models.Cancelled, 100, 100)
	})
	t.Run("that somebody waits for, who is told, now and later", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		h.follows(t)
		ended := make(chan error, 1)
		go func() {
			_, err := h.executes(t, "k")
			ended <- err
		}()
		<-h.called
		h.answer <- promised()
		task := h.promisedTask(t)
		_, err := h.Cancel(t.Context(), h.poster, task.ID)
		must(t, err)
		wantCode(t, <-ended, models.Conflict)
		_, err = h.executes(t, "k")
		wantCode(t, err, models.Conflict)
		if h.runs.Load() != 1 {
			t.Errorf("the agent ran %d times", h.runs.Load())
		}
		h.wants(t, task, models.Cancelled, 100, 100)
	})
	t.Run("beside a completion, an answer and a sweep", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		for range 10 {
			poster, _ := h.Balances(h.poster)
			worker, _ := h.Balances(h.worker)
			out, err := h.starts(t, "")
			must(t, err)
			<-h.called
			var won [3]atomic.Int32
			together(9, func(i int) {
				switch {
				case i == 0:
					h.answer <- done()
				case i < 4:
					if _, err := h.Cancel(t.Context(), h.poster, out.Task.ID); err == nil {
						won[1].Add(1)
					}
				case i < 7:
					if _, err := h.Complete(t.Context(), h.worker, out.Task.ID, "r"); err == nil {
						won[2].Add(1)
					}
				default:
					if err := h.Sweep(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
			h.Wait(t.Context())
			for len(h.answer) > 0 { // the run was cut off before it answered
				<-h.answer
			}
			switch cancelled, completed := won[1].Load(), won[2].Load(); {
			case cancelled == 1 && completed == 0:
				h.wants(t, out.Task, models.Cancelled, poster, worker)
			case cancelled == 0 && completed <= 1:
				h.wants(t, out.Task, models.Completed, poster-15, worker+13)
			default:
				t.Fatalf("cancelled %d times and completed %d times", cancelled, completed)
			}
			if poster < 30 {
				h.poster = h.Agent()
			}
		}
	})
}
