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
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// hireBundle is a market with one agent that hires another for 15 of its 100 credits.
type hireBundle struct {
	*markettest.Bundle
	poster, worker auth.Actor
	calls          chan market.RunOptions // what the agent was run with
	replies        chan agentReply        // what it answers
	runCount       atomic.Int32
}

type agentReply struct {
	market.RunResult
	err error
}

func newHireBundle(t *testing.T) *hireBundle {
	t.Helper()
	h := &hireBundle{Bundle: markettest.New(t), calls: make(chan market.RunOptions, 100), replies: make(chan agentReply, 100)}
	h.poster, h.worker = h.NewAgent(), h.NewAgent()
	h.FakeRunner.OutcomeFunc = func(ctx context.Context, _ *models.Task, terms market.RunOptions) (market.RunResult, error) {
		h.runCount.Add(1)
		h.calls <- terms
		select {
		case o := <-h.replies:
			return o.RunResult, o.err
		case <-ctx.Done():
			return market.RunResult{}, models.Errorf(models.ExecutionTimeout, "cut off")
		}
	}
	return h
}

func doneReply() agentReply     { return agentReply{RunResult: market.RunResult{Result: "done"}} }
func promisedReply() agentReply { return agentReply{RunResult: market.RunResult{Promised: true}} }

// followEvents has the log of events read while the test runs.
func (h *hireBundle) followEvents(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Log.Follow(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// startHire begins a hire, under a key unless that is empty.
func (h *hireBundle) startHire(t *testing.T, key string) (market.TaskResult, error) {
	t.Helper()
	ctx := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: key})
	return h.StartExecution(ctx, h.poster, market.StartExecutionInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
}

// executeHire hires and waits, under a key unless that is empty.
func (h *hireBundle) executeHire(t *testing.T, key string) (market.TaskResult, error) {
	t.Helper()
	ctx := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: key})
	return h.Execute(ctx, h.poster, market.ExecuteInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
}

// startPromisedHire starts a hire whose agent promises a result.
func (h *hireBundle) startPromisedHire(t *testing.T) models.Task {
	t.Helper()
	h.replies <- promisedReply()
	out, err := h.startHire(t, "")
	testutil.Must(t, err)
	h.WaitExecutions(t.Context())
	return out.Task
}

// wantHire holds the hire and both balances to what they must be, and the ledger to
// its laws.
func (h *hireBundle) wantHire(t *testing.T, task models.Task, status models.Status, poster, worker models.Credits) {
	t.Helper()
	wantStatus(t, h.Bundle, task, status)
	wantBalances(t, h.Bundle, h.poster, poster, 0)
	wantBalances(t, h.Bundle, h.worker, worker, 0)
	h.VerifyLedger()
}

// removeReplica has this process seem gone to whoever settles for the dead.
func (h *hireBundle) removeReplica(t *testing.T) {
	t.Helper()
	testutil.Must(t, h.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("DELETE FROM replicas WHERE id = ?", h.DB.ReplicaID()).Error
	}))
}

// executePromisedHire has somebody execute under the key k and wait, for a minute at most, for an
// agent that has promised its result. It returns the task, and what the waiting
// gives.
func (h *hireBundle) executePromisedHire(t *testing.T) (task models.Task, ended <-chan executeResult) {
	t.Helper()
	end := make(chan executeResult, 1)
	go func() {
		out, err := h.executeHire(t, "k")
		end <- executeResult{out, err}
	}()
	<-h.calls
	h.replies <- promisedReply()
	return h.awaitPromisedTask(t), end
}

type executeResult struct {
	market.TaskResult
	err error
}

// awaitPromisedTask waits for the one hire under way to be promised.
func (h *hireBundle) awaitPromisedTask(t *testing.T) models.Task {
	t.Helper()
	var promised []models.Event
	testutil.Eventually(t, "the hire to be promised", func() bool {
		testutil.Must(t, h.DB.Read(t.Context()).Find(&promised, "kind = ?", models.TaskPromised).Error)
		return len(promised) > 0
	})
	var task models.Task
	testutil.Must(t, h.DB.Read(t.Context()).Take(&task, "id = ?", promised[0].TaskID).Error)
	return task
}

func TestStartExecution(t *testing.T) {
	t.Parallel()
	t.Run("returns the task at once, and is settled though the caller is gone", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		ctx, hangUp := context.WithCancel(t.Context())
		out, err := h.StartExecution(ctx, h.poster, market.StartExecutionInput{
			AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15, DeadlineMinutes: new(90),
		})
		testutil.Must(t, err)
		hangUp()
		if terms := <-h.calls; !terms.Background || terms.Deadline != models.NewTime(h.Clock.Now().Add(90*time.Minute)) {
			t.Errorf("the agent is run with %+v", terms)
		}
		if out.Task.Status != models.Assigned || *out.Task.LeaseUntil != models.NewTime(h.Clock.Now().Add(90*time.Minute)) || out.Wallet.Available != 85 {
			t.Errorf("got %+v", out)
		}
		h.wantHire(t, out.Task, models.Assigned, 85, 100)
		h.replies <- doneReply()
		h.WaitExecutions(t.Context())
		h.wantHire(t, out.Task, models.Completed, 85, 113)
	})
	t.Run("gives the budget of a failure back", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		for _, failure := range []error{models.Errorf(models.ExecutionFailed, "no"), errors.New("broken")} {
			h.replies <- agentReply{err: failure}
			out, err := h.startHire(t, "")
			testutil.Must(t, err)
			h.WaitExecutions(t.Context())
			h.wantHire(t, out.Task, models.Failed, 100, 100)
		}
	})
	t.Run("is refused before anybody is called", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
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
		if h.runCount.Load() != 0 {
			t.Error("the agent was called")
		}
		wantBalances(t, h.Bundle, h.poster, 100, 0)
	})
	t.Run("with one key starts one, however many ask at once and after", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		ids := make([]string, 20)
		runConcurrently(len(ids), func(i int) {
			out, err := h.startHire(t, "k")
			if err != nil {
				t.Error(err)
			}
			ids[i] = out.Task.ID
		})
		h.replies <- doneReply()
		h.WaitExecutions(t.Context())
		again, err := h.startHire(t, "k")
		testutil.Must(t, err)
		for _, id := range ids {
			if id != again.Task.ID {
				t.Errorf("got tasks %s and %s", again.Task.ID, id)
			}
		}
		if h.runCount.Load() != 1 {
			t.Errorf("the agent ran %d times", h.runCount.Load())
		}
		h.wantHire(t, again.Task, models.Completed, 85, 113)
	})
	t.Run("whose process died is refunded once, and what comes later pays nobody", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		out, err := h.startHire(t, "k")
		testutil.Must(t, err)
		<-h.calls
		h.removeReplica(t)
		testutil.Must(t, h.Sweep(t.Context()))
		h.wantHire(t, out.Task, models.Failed, 100, 100)
		h.replies <- doneReply()
		h.WaitExecutions(t.Context())
		_, err = h.Complete(t.Context(), h.worker, out.Task.ID, "late")
		wantCode(t, err, models.Conflict)
		again, err := h.startHire(t, "k")
		if err != nil || again.Task.ID != out.Task.ID || h.runCount.Load() != 1 {
			t.Errorf("the same key started %s (%v), %d runs", again.Task.ID, err, h.runCount.Load())
		}
		h.wantHire(t, out.Task, models.Failed, 100, 100)
	})
}
