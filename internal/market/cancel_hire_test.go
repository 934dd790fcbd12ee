package market_test

import (
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestCancel_hire: the poster can cancel a running hire. Of a cancellation and a concurrent
// completion exactly one succeeds.
func TestCancel_hire(t *testing.T) {
	t.Parallel()
	t.Run("a promised hire", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		task := h.startPromisedHire(t)
		_, err := h.Cancel(t.Context(), h.worker, task.ID)
		wantCode(t, err, models.Forbidden)
		_, err = h.Cancel(t.Context(), h.NewAgent(), task.ID)
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
		mustSweep(t, h.Bundle)
		h.wantHire(t, task, models.Cancelled, 100, 100)
	})
	t.Run("a running hire, whose execution is cancelled", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		out, err := h.startHire(t, "k")
		testutil.Must(t, err)
		<-h.calls
		_, err = h.Cancel(t.Context(), h.poster, out.Task.ID)
		testutil.Must(t, err)
		h.WaitExecutions(t.Context()) // there is no reply: the hire ends because its context is cancelled
		h.wantHire(t, out.Task, models.Cancelled, 100, 100)
	})
	t.Run("a hire that is about to run, whose execution is cancelled", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		h.FakeWebhooks.NotifyFunc = func(event *models.Event) error { // before the hire is committed
			if event.Kind == models.TaskAccepted {
				h.CancelExecution(*event.TaskID)
			}
			return nil
		}
		out, err := h.startHire(t, "")
		testutil.Must(t, err)
		ended := make(chan struct{})
		go func() { h.WaitExecutions(t.Context()); close(ended) }()
		select {
		case <-ended:
		case <-time.After(testutil.Timeout):
			t.Error("the execution was not cancelled")
			h.replies <- doneReply()
			<-ended
		}
		h.wantHire(t, out.Task, models.Failed, 100, 100)
	})
	t.Run("a hire on the model cannot be cancelled, because its text can be read during the run", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		testutil.Must(t, h.setSystemPrompt(t, h.worker))
		out, err := h.startHire(t, "")
		testutil.Must(t, err)
		<-h.calls
		_, err = h.Cancel(t.Context(), h.poster, out.Task.ID)
		wantCode(t, err, models.Conflict)
		h.replies <- doneReply()
		h.WaitExecutions(t.Context())
		h.wantHire(t, out.Task, models.Completed, 85, 113)
	})
	t.Run("a waiting caller gets CONFLICT, and so does a replay", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		h.followEvents(t)
		task, ended := h.executePromisedHire(t)
		_, err := h.Cancel(t.Context(), h.poster, task.ID)
		testutil.Must(t, err)
		wantCode(t, (<-ended).err, models.Conflict)
		_, err = h.executeHire(t, "k")
		wantCode(t, err, models.Conflict)
		if h.runCount.Load() != 1 {
			t.Errorf("the agent ran %d times", h.runCount.Load())
		}
		h.wantHire(t, task, models.Cancelled, 100, 100)
	})
	t.Run("concurrently with a completion, a result and a sweep", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		for range 10 {
			poster, _ := h.Balances(h.poster)
			worker, _ := h.Balances(h.worker)
			out, err := h.startHire(t, "")
			testutil.Must(t, err)
			<-h.calls
			var won [3]atomic.Int32
			runConcurrently(9, func(i int) {
				switch {
				case i == 0:
					h.replies <- doneReply()
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
			h.WaitExecutions(t.Context())
			for len(h.replies) > 0 { // the run was cancelled before it read the reply
				<-h.replies
			}
			switch cancelled, completed := won[1].Load(), won[2].Load(); {
			case cancelled == 1 && completed == 0:
				h.wantHire(t, out.Task, models.Cancelled, poster, worker)
			case cancelled == 0 && completed <= 1:
				h.wantHire(t, out.Task, models.Completed, poster-15, worker+13)
			default:
				t.Fatalf("cancelled %d times and completed %d times", cancelled, completed)
			}
			if poster < 30 {
				h.poster = h.NewAgent()
			}
		}
	})
}
