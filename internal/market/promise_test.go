package market_test

import (
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestPromise(t *testing.T) {
	t.Parallel()
	t.Run("the agent completes the task once, with its own key", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		task := h.startPromisedHire(t)
		h.wantHire(t, task, models.Assigned, 85, 100)
		_, err := h.Complete(t.Context(), h.poster, task.ID, "r")
		wantCode(t, err, models.Forbidden)
		_, err = h.Complete(t.Context(), h.NewAgent(), task.ID, "r")
		wantCode(t, err, models.NotFound)
		var paid atomic.Int32
		runConcurrently(20, func(int) {
			out, err := h.Complete(t.Context(), h.worker, task.ID, "r")
			if err == nil {
				paid.Add(1)
				if out.Wallet.AgentID != h.worker.AgentID || out.Wallet.Available != 113 {
					t.Errorf("the worker got the wallet %+v", out.Wallet)
				}
				return
			}
			wantCode(t, err, models.Conflict)
		})
		if paid.Load() != 1 {
			t.Errorf("paid %d times", paid.Load())
		}
		h.wantHire(t, task, models.Completed, 85, 113)
	})
	t.Run("a promised task outlives the process that hired", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		task := h.startPromisedHire(t)
		h.removeReplica(t)
		testutil.Must(t, h.Sweep(t.Context()))
		h.wantHire(t, task, models.Assigned, 85, 100)
		_, err := h.Complete(t.Context(), h.worker, task.ID, "r")
		testutil.Must(t, err)
		h.wantHire(t, task, models.Completed, 85, 113)
	})
	t.Run("a broken promise is refunded at the deadline", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		task := h.startPromisedHire(t)
		h.Clock.Advance(time.Hour - time.Second)
		mustSweep(t, h.Bundle)
		h.wantHire(t, task, models.Assigned, 85, 100)
		h.Clock.Advance(time.Second)
		_, err := h.Complete(t.Context(), h.worker, task.ID, "late, but before the sweep")
		wantCode(t, err, models.Conflict)
		mustSweep(t, h.Bundle)
		mustSweep(t, h.Bundle)
		h.wantHire(t, task, models.Failed, 100, 100)
	})
	t.Run("the agent releases the task", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		h.followEvents(t)
		task, ended := h.executePromisedHire(t)
		_, err := h.Release(t.Context(), h.poster, task.ID)
		wantCode(t, err, models.Forbidden)
		out, err := h.Release(t.Context(), h.worker, task.ID)
		if err != nil || out.Task.Status != models.Failed || out.Wallet.Available != 100 {
			t.Errorf("got %+v, %v", out, err)
		}
		wantCode(t, (<-ended).err, models.ExecutionFailed)
		_, err = h.executeHire(t, "k")
		wantCode(t, err, models.ExecutionFailed)
		_, err = h.Complete(t.Context(), h.worker, task.ID, "late")
		wantCode(t, err, models.Conflict)
		_, err = h.Extend(t.Context(), h.worker, task.ID, nil)
		wantCode(t, err, models.Conflict)
		h.wantHire(t, task, models.Failed, 100, 100)
	})
	t.Run("the agent completes the task before its endpoint has replied", func(t *testing.T) {
		t.Parallel()
		for _, reply := range []agentReply{promisedReply(), doneReply(), {err: models.Errorf(models.ExecutionFailed, "no")}} {
			h := newHireBundle(t)
			out, err := h.startHire(t, "")
			testutil.Must(t, err)
			<-h.calls
			_, err = h.Complete(t.Context(), h.worker, out.Task.ID, "quick")
			testutil.Must(t, err)
			h.replies <- reply
			h.WaitExecutions(t.Context())
			h.wantHire(t, out.Task, models.Completed, 85, 113)
		}
	})
	t.Run("of concurrent completions and sweeps at the deadline one succeeds", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		for range 10 {
			poster, _ := h.Balances(h.poster)
			worker, _ := h.Balances(h.worker)
			task := h.startPromisedHire(t)
			h.Clock.Advance(time.Hour - time.Millisecond)
			var completed atomic.Int32
			runConcurrently(8, func(i int) {
				switch i {
				case 0:
					h.Clock.Advance(time.Millisecond)
				case 1, 2, 3:
					if err := h.Sweep(t.Context()); err != nil {
						t.Error(err)
					}
				default:
					if _, err := h.Complete(t.Context(), h.worker, task.ID, "r"); err == nil {
						completed.Add(1)
					}
				}
			})
			mustSweep(t, h.Bundle)
			switch completed.Load() {
			case 0:
				h.wantHire(t, task, models.Failed, poster, worker)
			case 1:
				h.wantHire(t, task, models.Completed, poster-15, worker+13)
			default:
				t.Fatalf("completed %d times", completed.Load())
			}
			if poster < 30 {
				h.poster = h.NewAgent()
			}
		}
	})
}

// TestExecute_promisedResult: a waiting caller gets a promised result that arrives in time.
// A timeout of the wait fails nothing. A retry with the same key gets the hire in its
// current state and never creates another.
func TestExecute_promisedResult(t *testing.T) {
	t.Parallel()
	t.Run("completed while the caller waits", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		h.followEvents(t)
		task, ended := h.executePromisedHire(t)
		if *task.LeaseUntil != models.NewTime(h.Clock.Now().Add(time.Hour)) {
			t.Errorf("the promise is due at %v", *task.LeaseUntil)
		}
		_, err := h.Complete(t.Context(), h.worker, task.ID, "result")
		testutil.Must(t, err)
		if got := <-ended; got.err != nil || *got.Task.Result != "result" || got.Wallet.Available != 85 {
			t.Errorf("the waiting caller got %+v", got)
		}
		again, err := h.executeHire(t, "k")
		if err != nil || *again.Task.Result != "result" || h.runCount.Load() != 1 {
			t.Errorf("the same key got %+v, %v", again, err)
		}
		h.wantHire(t, task, models.Completed, 85, 113)
	})
	t.Run("completed after the wait", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		h.followEvents(t)
		h.Settings.ExecuteTimeout = time.Millisecond
		h.replies <- promisedReply()
		out, err := h.executeHire(t, "k")
		if err != nil || out.Task.Status != models.Assigned || out.Wallet.Available != 85 {
			t.Fatalf("after the timeout got %+v, %v", out, err)
		}
		again, err := h.executeHire(t, "k")
		if err != nil || again.Task.ID != out.Task.ID || again.Task.Status != models.Assigned {
			t.Errorf("the same key got %+v, %v", again, err)
		}
		_, err = h.Complete(t.Context(), h.worker, out.Task.ID, "result")
		testutil.Must(t, err)
		again, err = h.executeHire(t, "k")
		if err != nil || again.Task.ID != out.Task.ID || *again.Task.Result != "result" || h.runCount.Load() != 1 {
			t.Errorf("the same key got %+v, %v after %d runs", again, err, h.runCount.Load())
		}
		h.wantHire(t, out.Task, models.Completed, 85, 113)
	})
	t.Run("the wait ends when the server stops", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		h.StopWaiting()
		h.replies <- promisedReply()
		out, err := h.executeHire(t, "")
		if err != nil || out.Task.Status != models.Assigned {
			t.Errorf("got %+v, %v", out, err)
		}
		h.wantHire(t, out.Task, models.Assigned, 85, 100)
	})
	t.Run("broken promise", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		h.followEvents(t)
		h.Settings.ExecuteTimeout = time.Millisecond
		h.replies <- promisedReply()
		out, err := h.executeHire(t, "k")
		testutil.Must(t, err)
		h.Clock.Advance(time.Hour)
		mustSweep(t, h.Bundle)
		_, err = h.executeHire(t, "k")
		wantCode(t, err, models.ExecutionTimeout)
		h.wantHire(t, out.Task, models.Failed, 100, 100)
	})
}
