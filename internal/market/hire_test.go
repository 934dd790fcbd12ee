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

// hireBundle is a market with a poster that hires a worker for 15 of its 100 credits.
type hireBundle struct {
	*markettest.Bundle
	poster, worker auth.Actor
	calls          chan market.RunOptions // options of each run
	replies        chan agentReply        // replies of the worker
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
	h.FakeRunner.OutcomeFunc = func(ctx context.Context, _ *models.Task, opts market.RunOptions) (market.RunResult, error) {
		h.runCount.Add(1)
		h.calls <- opts
		select {
		case reply := <-h.replies:
			return reply.RunResult, reply.err
		case <-ctx.Done():
			return market.RunResult{}, models.Errorf(models.ExecutionTimeout, "cancelled")
		}
	}
	return h
}

func doneReply() agentReply     { return agentReply{RunResult: market.RunResult{Result: "done"}} }
func promisedReply() agentReply { return agentReply{RunResult: market.RunResult{Promised: true}} }

// followEvents follows the event log until the test ends.
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

// startHire starts a background hire, with an idempotency key unless key is empty.
func (h *hireBundle) startHire(t *testing.T, key string) (market.TaskResult, error) {
	t.Helper()
	ctx := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: key})
	return h.StartExecution(ctx, h.poster, market.StartExecutionInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
}

// executeHire executes a hire, with an idempotency key unless key is empty.
func (h *hireBundle) executeHire(t *testing.T, key string) (market.TaskResult, error) {
	t.Helper()
	ctx := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: key})
	return h.Execute(ctx, h.poster, market.ExecuteInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
}

// startPromisedHire starts a background hire whose agent promises its result.
func (h *hireBundle) startPromisedHire(t *testing.T) models.Task {
	t.Helper()
	h.replies <- promisedReply()
	out, err := h.startHire(t, "")
	testutil.Must(t, err)
	h.WaitExecutions(t.Context())
	return out.Task
}

// wantHire checks the status of a hire and the balances of both agents, and verifies the
// ledger.
func (h *hireBundle) wantHire(t *testing.T, task models.Task, status models.Status, poster, worker models.Credits) {
	t.Helper()
	wantStatus(t, h.Bundle, task, status)
	wantBalances(t, h.Bundle, h.poster, poster, 0)
	wantBalances(t, h.Bundle, h.worker, worker, 0)
	h.VerifyLedger()
}

// removeReplica makes this process look stopped to the sweep.
func (h *hireBundle) removeReplica(t *testing.T) {
	t.Helper()
	testutil.Must(t, h.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("DELETE FROM replicas WHERE id = ?", h.DB.ReplicaID()).Error
	}))
}

// executePromisedHire executes a hire with the key k in the background, whose agent
// promises its result. It returns the task, and a channel with the result of Execute.
func (h *hireBundle) executePromisedHire(t *testing.T) (task models.Task, ended <-chan executeResult) {
	t.Helper()
	results := make(chan executeResult, 1)
	go func() {
		out, err := h.executeHire(t, "k")
		results <- executeResult{out, err}
	}()
	<-h.calls
	h.replies <- promisedReply()
	return h.awaitPromisedTask(t), results
}

type executeResult struct {
	market.TaskResult
	err error
}

// awaitPromisedTask waits for the event of a promised result and returns its task.
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
	t.Run("returns the task at once, and settles it after the caller has disconnected", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		ctx, disconnect := context.WithCancel(t.Context())
		out, err := h.StartExecution(ctx, h.poster, market.StartExecutionInput{
			AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15, DeadlineMinutes: new(90),
		})
		testutil.Must(t, err)
		disconnect()
		if opts := <-h.calls; !opts.Background || opts.Deadline != models.NewTime(h.Clock.Now().Add(90*time.Minute)) {
			t.Errorf("the agent ran with %+v", opts)
		}
		if out.Task.Status != models.Assigned || *out.Task.LeaseUntil != models.NewTime(h.Clock.Now().Add(90*time.Minute)) || out.Wallet.Available != 85 {
			t.Errorf("got %+v", out)
		}
		h.wantHire(t, out.Task, models.Assigned, 85, 100)
		h.replies <- doneReply()
		h.WaitExecutions(t.Context())
		h.wantHire(t, out.Task, models.Completed, 85, 113)
	})
	t.Run("refunds the budget of a failure", func(t *testing.T) {
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
	t.Run("invalid hires are rejected before the agent is called", func(t *testing.T) {
		t.Parallel()
		h := newHireBundle(t)
		start := func(poster auth.Actor, budget models.Credits, minutes *int) error {
			_, err := h.StartExecution(t.Context(), poster, market.StartExecutionInput{
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
	t.Run("concurrent and later requests with one key start one hire", func(t *testing.T) {
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
	t.Run("a hire of a stopped process is refunded once, and a late result pays nobody", func(t *testing.T) {
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
