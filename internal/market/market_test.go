package market_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/models"
)

func TestPost(t *testing.T) {
	t.Parallel()
	t.Run("holds the budget", func(t *testing.T) {
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
	t.Run("concurrent posts cannot spend more than the balance", func(t *testing.T) {
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
			t.Errorf("%d posts of 7 credits succeeded with a balance of 100, want 14", posted.Load())
		}
		wantBalances(t, b, poster, 2, 98)
		b.VerifyLedger()
	})
	t.Run("invalid fields are rejected by name", func(t *testing.T) {
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
			if got := models.AsError(err); got.Field != name {
				t.Errorf("the error of %s names the field %q", name, got.Field)
			}
		}
		wantBalances(t, b, poster, 100, 0)
	})
}

func TestAccept(t *testing.T) {
	t.Parallel()
	t.Run("of concurrent workers one succeeds, and no balance changes", func(t *testing.T) {
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
			t.Errorf("%d workers succeeded, want 1", won.Load())
		}
		wantBalances(t, b, poster, 75, 0)
		wantBalances(t, b, workers[0], 100, 0)
		if report := b.VerifyLedger(); report.InEscrow != 25 {
			t.Errorf("escrow holds %d, want 25", report.InEscrow)
		}
	})
	t.Run("the poster cannot accept its own task", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster := b.NewAgent()
		_, err := b.Accept(t.Context(), poster, b.NewTask(poster, 25).ID)
		wantCode(t, err, models.Forbidden)
	})
	t.Run("an unknown task is NOT_FOUND", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		_, err := b.Accept(t.Context(), b.NewAgent(), "nothing")
		wantCode(t, err, models.NotFound)
	})
}

func TestComplete(t *testing.T) {
	t.Parallel()
	t.Run("concurrent calls pay 90 % rounded down once", func(t *testing.T) {
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
		agent, err := b.Agent(t.Context(), worker.AgentID)
		if err != nil || agent.CompletedCount != 1 {
			t.Errorf("completed count is %d (%v), want 1", agent.CompletedCount, err)
		}
	})
	t.Run("only the worker can complete, with a valid result, after accepting", func(t *testing.T) {
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
	t.Run("another worker can accept a lapsed task, and the former worker cannot complete it", func(t *testing.T) {
		t.Parallel()
		b := markettest.New(t)
		poster, first, second := b.NewAgent(), b.NewAgent(), b.NewAgent()
		task := b.NewTask(poster, 25)
		mustAccept(t, b, first, task)
		b.Clock.Advance(25 * time.Hour)
		if shown, err := b.Task(t.Context(), "", task.ID); err != nil || shown.Status != models.Open || shown.WorkerID != nil {
			t.Errorf("a lapsed task is %v (%v), want open without a worker", shown, err)
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
	t.Run("the worker can complete a lapsed task that no other has accepted", func(t *testing.T) {
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
	t.Run("three lapses expire the task and refund the poster", func(t *testing.T) {
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
	t.Run("an extended lease does not lapse", func(t *testing.T) {
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
	agent, err := b.Agent(t.Context(), worker.AgentID)
	if err != nil || *agent.ReputationScore() != 4 {
		t.Errorf("reputation is %v (%v), want 4", agent.ReputationScore(), err)
	}
}

// TestTask_malformedID: an id that is not valid text is NOT_FOUND on both databases.
func TestTask_malformedID(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.NewAgent()
	for _, id := range []string{"\xb8", "a\x00b"} {
		_, read := b.Task(t.Context(), agent.AgentID, id)
		_, accepted := b.Accept(t.Context(), agent, id)
		for operation, err := range map[string]error{"read": read, "accept": accepted} {
			if models.CodeOf(err) != models.NotFound {
				t.Errorf("%s %q: %v", operation, id, err)
			}
		}
	}
}
