package market_test

import (
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// atOnce does something with a hire before it is committed: nothing comes earlier.
type atOnce struct {
	market.Notifier
	do func(taskID string)
}

func (a atOnce) Announce(_ *database.Tx, event *models.Event) error {
	if event.Kind == models.TaskAccepted {
		a.do(*event.TaskID)
	}
	return nil
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
	t.Run("that is about to run, which is cut off too", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		h.Notifier = atOnce{h.Notifier, h.CutOff}
		out, err := h.starts(t, "")
		must(t, err)
		ended := make(chan struct{})
		go func() { h.Wait(t.Context()); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Error("the hire runs on")
			h.answer <- done()
			<-ended
		}
		h.wants(t, out.Task, models.Failed, 100, 100)
	})
	t.Run("that runs on the model, which cannot be: it is read on the way", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		must(t, h.prompted(t, h.worker))
		out, err := h.starts(t, "")
		must(t, err)
		<-h.called
		_, err = h.Cancel(t.Context(), h.poster, out.Task.ID)
		wantCode(t, err, models.Conflict)
		h.answer <- done()
		h.Wait(t.Context())
		h.wants(t, out.Task, models.Completed, 85, 113)
	})
	t.Run("that somebody waits for, who is told, now and later", func(t *testing.T) {
		t.Parallel()
		h := newHiring(t)
		h.follows(t)
		task, ended := h.waits(t)
		_, err := h.Cancel(t.Context(), h.poster, task.ID)
		must(t, err)
		wantCode(t, (<-ended).err, models.Conflict)
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
