package market_test

import (
	"context"
	"errors"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestExecute(t *testing.T) {
	t.Parallel()
	hire := func(b *markettest.Bundle, poster, worker auth.Actor, budget models.Credits) (market.TaskResult, error) {
		return b.Execute(t.Context(), poster, market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "Write a haiku", Budget: budget})
	}
	t.Run("the agent is paid for its result", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		out, err := hire(b, poster, worker, 15)
		if err != nil || *out.Task.Result != "done" {
			t.Fatalf("got %v, %v", out.Task.Result, err)
		}
		wantBalances(t, b, poster, 85, 0)
		wantBalances(t, b, worker, 113, 0)
		_, err = b.Task(t.Context(), b.NewAgent().AgentID, out.Task.ID)
		wantCode(t, err, models.NotFound)
		b.VerifyLedger()
	})
	t.Run("a failure is refunded", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		for _, failure := range []error{models.Errorf(models.ExecutionTimeout, "too slow"), errors.New("broken")} {
			b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) { return "", failure }
			_, err := hire(b, poster, worker, 15)
			wantCode(t, err, models.CodeOf(failure))
		}
		b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) { return "\x00", nil }
		_, err := hire(b, poster, worker, 15)
		wantCode(t, err, models.ExecutionFailed)
		wantBalances(t, b, poster, 100, 0)
		b.VerifyLedger()
	})
	t.Run("a budget below the price, a hire of oneself and missing credits are rejected before the call", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
			t.Error("the agent was called")
			return "", nil
		}
		_, err := hire(b, poster, worker, 9)
		wantCode(t, err, models.InvalidInput)
		_, err = hire(b, poster, poster, 15)
		wantCode(t, err, models.Forbidden)
		_, err = hire(b, poster, worker, 101)
		wantCode(t, err, models.InsufficientFunds)
		wantBalances(t, b, poster, 100, 0)
	})
	t.Run("a running hire locks nothing, and is refunded once after its process has stopped", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		started, finish := make(chan struct{}), make(chan struct{})
		b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
			close(started)
			<-finish
			return "too late", nil
		}
		ended := make(chan error)
		go func() {
			_, err := hire(b, poster, worker, 15)
			ended <- err
		}()
		<-started
		b.NewTask(poster, 10) // not blocked by the running hire
		wantBalances(t, b, poster, 75, 10)
		if err := b.Sweep(t.Context()); err != nil { // the process is running, so the sweep does nothing
			t.Fatal(err)
		}
		wantBalances(t, b, poster, 75, 10)
		err := b.DB.Write(t.Context(), func(tx *database.Tx) error {
			return tx.Exec("DELETE FROM replicas WHERE id = ?", b.DB.ReplicaID()).Error
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantBalances(t, b, poster, 90, 10)
		close(finish)
		wantCode(t, <-ended, models.ExecutionFailed)
		wantBalances(t, b, poster, 90, 10)
		b.VerifyLedger()
	})
}

// TestExecute_agentPanics: a panic during the call to an agent fails that hire, including
// in the background.
func TestExecute_agentPanics(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker := b.NewAgent(), b.NewAgent()
	b.FakeRunner.OutcomeFunc = func(context.Context, *models.Task, market.RunOptions) (market.RunResult, error) { panic("test") }
	_, err := b.Execute(t.Context(), poster, market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 20})
	wantCode(t, err, models.ExecutionFailed)
	out, err := b.StartExecution(t.Context(), poster, market.StartExecutionInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 20})
	testutil.Must(t, err)
	b.WaitExecutions(t.Context())
	task, err := b.Task(t.Context(), poster.AgentID, out.Task.ID)
	testutil.Must(t, err)
	if task.Status != models.Failed {
		t.Errorf("the hire is %s", task.Status)
	}
	wantBalances(t, b, poster, 100, 0)
	b.VerifyLedger()
}
