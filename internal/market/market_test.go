package market_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/models"
)

func TestPost(t *testing.T) {
	t.Parallel()
	t.Run("sets the budget aside", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster := b.NewAgent()
		task := b.NewTask(poster, 25, "Research", "research", " Summarization ")
		if want := []string{"research", "summarization"}; strings.Join(task.Capabilities, ",") != strings.Join(want, ",") {
			t.Errorf("capabilities are %v, want %v", task.Capabilities, want)
		}
		wantBalances(t, b, poster, 75, 25)
		b.VerifyLedger()
	})
	t.Run("cannot spend what is not there, however many post at once", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster := b.NewAgent()
		var posted atomic.Int32
		runConcurrently(50, func(int) {
			_, err := b.Post(t.Context(), poster, market.PostTaskInput{Title: "T", Description: "D", Budget: 7})
			if err == nil {
				posted.Add(1)
				return
			}
			wantCode(t, err, models.InsufficientFunds)
		})
		if posted.Load() != 14 {
			t.Errorf("%d posts of 7 went through with 100 credits, want 14", posted.Load())
		}
		wantBalances(t, b, poster, 2, 98)
		b.VerifyLedger()
	})
	t.Run("refuses what cannot be", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster := b.NewAgent()
		n := func(i int) *int { return &i }
		for name, in := range map[string]market.PostTaskInput{
			"title":                {Title: " ", Description: "D", Budget: 5},
			"description":          {Title: "T", Description: "", Budget: 5},
			"budget":               {Title: "T", Description: "D", Budget: 1},
			"requiredCapabilities": {Title: "T", Description: "D", Budget: 5, RequiredCapabilities: []string{""}},
			"openForMinutes":       {Title: "T", Description: "D", Budget: 5, OpenForMinutes: n(0)},
			"leaseMinutes":         {Title: "T", Description: "D", Budget: 5, LeaseMinutes: n(43_201)},
		} {
			_, err := b.Post(t.Context(), poster, in)
			wantCode(t, err, models.InvalidInput)
			if refusal := models.AsError(err); refusal.Field != name {
				t.Errorf("the refusal of %s is about %q", name, refusal.Field)
			}
		}
		wantBalances(t, b, poster, 100, 0)
	})
}

func TestAccept(t *testing.T) {
	t.Parallel()
	t.Run("of many one wins, and nobody's balance changes", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster := b.NewAgent()
		task := b.NewTask(poster, 25)
		workers := make([]auth.Actor, 50)
		for i := range workers {
			workers[i] = b.NewAgent()
		}
		var won atomic.Int32
		runConcurrently(len(workers), func(i int) {
			_, err := b.Accept(t.Context(), workers[i], task.ID)
			if err == nil {
				won.Add(1)
				return
			}
			wantCode(t, err, models.Conflict)
		})
		if won.Load() != 1 {
			t.Errorf("%d workers won, want 1", won.Load())
		}
		wantBalances(t, b, poster, 75, 0)
		wantBalances(t, b, workers[0], 100, 0)
		if report := b.VerifyLedger(); report.InEscrow != 25 {
			t.Errorf("escrow holds %d, want 25", report.InEscrow)
		}
	})
	t.Run("not by its poster", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster := b.NewAgent()
		_, err := b.Accept(t.Context(), poster, b.NewTask(poster, 25).ID)
		wantCode(t, err, models.Forbidden)
	})
	t.Run("not of a task that is not there", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		_, err := b.Accept(t.Context(), b.NewAgent(), "nothing")
		wantCode(t, err, models.NotFound)
	})
}

func TestComplete(t *testing.T) {
	t.Parallel()
	t.Run("pays nine tenths rounded down, once", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		task := b.NewTask(poster, 25)
		mustAccept(t, b, worker, task)
		var paid atomic.Int32
		runConcurrently(20, func(int) {
			_, err := b.Complete(t.Context(), worker, task.ID, "the result")
			if err == nil {
				paid.Add(1)
				return
			}
			wantCode(t, err, models.Conflict)
		})
		if paid.Load() != 1 {
			t.Errorf("paid %d times", paid.Load())
		}
		wantBalances(t, b, worker, 122, 0)
		wantBalances(t, b, poster, 75, 0)
		if report := b.VerifyLedger(); report.InFees != 3 || report.InEscrow != 0 {
			t.Errorf("fees %d and escrow %d, want 3 and 0", report.InFees, report.InEscrow)
		}
		agent, err := b.Market.Agent(t.Context(), worker.AgentID)
		if err != nil || agent.CompletedCount != 1 {
			t.Errorf("completed count is %d (%v), want 1", agent.CompletedCount, err)
		}
	})
	t.Run("not by anyone else, not before it is accepted", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker, other := b.NewAgent(), b.NewAgent(), b.NewAgent()
		task := b.NewTask(poster, 25)
		_, err := b.Complete(t.Context(), worker, task.ID, "r")
		wantCode(t, err, models.Conflict)
		mustAccept(t, b, worker, task)
		_, err = b.Complete(t.Context(), other, task.ID, "r")
		wantCode(t, err, models.Forbidden)
		_, err = b.Complete(t.Context(), worker, task.ID, "")
		wantCode(t, err, models.InvalidInput)
		b.VerifyLedger()
	})
}

func TestLease(t *testing.T) {
	t.Parallel()
	t.Run("a lapsed task can be taken over, and its old worker comes too late", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, first, second := b.NewAgent(), b.NewAgent(), b.NewAgent()
		task := b.NewTask(poster, 25)
		mustAccept(t, b, first, task)
		b.Clock.Advance(25 * time.Hour)
		if shown, err := b.Task(t.Context(), "", task.ID); err != nil || shown.Status != models.Open || shown.WorkerID != nil {
			t.Errorf("a lapsed task is shown as %v (%v), want open without a worker", shown, err)
		}
		mustAccept(t, b, second, task)
		_, err := b.Complete(t.Context(), first, task.ID, "late")
		wantCode(t, err, models.Forbidden)
		if _, err := b.Complete(t.Context(), second, task.ID, "in time"); err != nil {
			t.Fatal(err)
		}
		wantBalances(t, b, second, 122, 0)
		b.VerifyLedger()
	})
	t.Run("its worker may be late as long as nobody took it", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		task := b.NewTask(poster, 25)
		mustAccept(t, b, worker, task)
		b.Clock.Advance(25 * time.Hour)
		if _, err := b.Complete(t.Context(), worker, task.ID, "late"); err != nil {
			t.Fatal(err)
		}
		b.VerifyLedger()
	})
	t.Run("three lapses end it and refund the poster", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker := b.NewAgent(), b.NewAgent()
		task := b.NewTask(poster, 25)
		for range models.MaxLapses {
			mustAccept(t, b, worker, task)
			b.Clock.Advance(25 * time.Hour)
		}
		_, err := b.Accept(t.Context(), worker, task.ID)
		wantCode(t, err, models.Conflict)
		mustSweep(t, b)
		wantStatus(t, b, task, models.Expired)
		wantBalances(t, b, poster, 100, 0)
		b.VerifyLedger()
	})
	t.Run("extending keeps it", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, worker, other := b.NewAgent(), b.NewAgent(), b.NewAgent()
		task := b.NewTask(poster, 25)
		mustAccept(t, b, worker, task)
		b.Clock.Advance(23 * time.Hour)
		if _, err := b.Extend(t.Context(), worker, task.ID, nil); err != nil {
			t.Fatal(err)
		}
		b.Clock.Advance(2 * time.Hour)
		_, err := b.Accept(t.Context(), other, task.ID)
		wantCode(t, err, models.Conflict)
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker := b.NewAgent(), b.NewAgent()
	task := b.NewTask(poster, 25)
	_, err := b.Cancel(t.Context(), worker, task.ID)
	wantCode(t, err, models.Forbidden)
	mustAccept(t, b, worker, task)
	_, err = b.Cancel(t.Context(), poster, task.ID)
	wantCode(t, err, models.Conflict)
	if _, err = b.Release(t.Context(), worker, task.ID); err != nil {
		t.Fatal(err)
	}
	wantBalances(t, b, poster, 75, 25)
	if _, err = b.Cancel(t.Context(), poster, task.ID); err != nil {
		t.Fatal(err)
	}
	wantBalances(t, b, poster, 100, 0)
	_, err = b.Cancel(t.Context(), poster, task.ID)
	wantCode(t, err, models.Conflict)
	b.VerifyLedger()
}

func TestRate(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker := b.NewAgent(), b.NewAgent()
	task := b.NewTask(poster, 25)
	_, err := b.Rate(t.Context(), poster, market.RateTaskInput{TaskID: task.ID, Score: 5})
	wantCode(t, err, models.Conflict)
	mustAccept(t, b, worker, task)
	if _, err = b.Complete(t.Context(), worker, task.ID, "r"); err != nil {
		t.Fatal(err)
	}
	_, err = b.Rate(t.Context(), worker, market.RateTaskInput{TaskID: task.ID, Score: 5})
	wantCode(t, err, models.Forbidden)
	if _, err = b.Rate(t.Context(), poster, market.RateTaskInput{TaskID: task.ID, Score: 4}); err != nil {
		t.Fatal(err)
	}
	_, err = b.Rate(t.Context(), poster, market.RateTaskInput{TaskID: task.ID, Score: 5})
	wantCode(t, err, models.Conflict)
	agent, err := b.Market.Agent(t.Context(), worker.AgentID)
	if err != nil || *agent.ReputationScore() != 4 {
		t.Errorf("reputation is %v (%v), want 4", agent.ReputationScore(), err)
	}
}

func TestExecute(t *testing.T) {
	t.Parallel()
	hire := func(b *markettest.Bundle, poster, worker auth.Actor, budget models.Credits) (market.TaskResult, error) {
		return b.Execute(t.Context(), poster, market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "Write a haiku", Budget: budget})
	}
	t.Run("pays the agent for its result", func(t *testing.T) {
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
	t.Run("refunds a failure", func(t *testing.T) {
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
	t.Run("calls nobody below the price, for oneself, or without the credits", func(t *testing.T) {
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
	t.Run("nothing else waits, and a dead process's hire is refunded once", func(t *testing.T) {
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
		b.NewTask(poster, 10) // nothing is locked meanwhile
		wantBalances(t, b, poster, 75, 10)
		if err := b.Sweep(t.Context()); err != nil { // its process is alive
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

// runConcurrently runs fn n times at once.
func runConcurrently(n int, fn func(i int)) {
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-start
			fn(i)
		})
	}
	close(start)
	group.Wait()
}

func mustAccept(t *testing.T, b *markettest.Bundle, worker auth.Actor, task models.Task) {
	t.Helper()
	if _, err := b.Accept(t.Context(), worker, task.ID); err != nil {
		t.Fatal(err)
	}
}

func mustSweep(t *testing.T, b *markettest.Bundle) {
	t.Helper()
	if err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantStatus(t *testing.T, b *markettest.Bundle, task models.Task, want models.Status) {
	t.Helper()
	var row models.Task
	if err := b.DB.Read(t.Context()).Take(&row, "id = ?", task.ID).Error; err != nil || row.Status != want {
		t.Errorf("task is %s (%v), want %s", row.Status, err, want)
	}
}

func wantBalances(t *testing.T, b *markettest.Bundle, agent auth.Actor, available, held models.Credits) {
	t.Helper()
	if a, h := b.Balances(agent); a != available || h != held {
		t.Errorf("has %d and %d held, want %d and %d", a, h, available, held)
	}
}

func wantCode(t *testing.T, err error, want models.Code) {
	t.Helper()
	if err == nil || models.CodeOf(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestTask_invalidIDBytes: an id with bytes that are no text is of nothing, on both services.
func TestTask_invalidIDBytes(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.NewAgent()
	for _, id := range []string{"\xb8", "a\x00b"} {
		_, read := b.Task(t.Context(), agent.AgentID, id)
		_, accepted := b.Accept(t.Context(), agent, id)
		for verb, err := range map[string]error{"read": read, "accept": accepted} {
			if models.CodeOf(err) != models.NotFound {
				t.Errorf("%s %q: %v", verb, id, err)
			}
		}
	}
}
