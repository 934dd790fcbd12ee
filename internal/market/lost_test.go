package market_test

import (
	"context"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/models"
)

// TestSweep_lost: a hire that this process wrote, and was told it had not, is given
// back after a minute; one that it runs is not.
func TestSweep_lost(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker := b.Agent(), b.Agent()
	begun, end := make(chan struct{}), make(chan struct{})
	b.Hired.Outcome = func(context.Context, *models.Task, market.Terms) (market.Outcome, error) {
		begun <- struct{}{}
		<-end
		return market.Outcome{Promised: true}, nil
	}
	start := func() string {
		out, err := b.StartExecution(t.Context(), poster, market.StartExecutionInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 20})
		must(t, err)
		<-begun
		return out.Task.ID
	}
	lost := start()
	end <- struct{}{}
	b.Wait(t.Context())
	must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Run("UPDATE tasks SET replica = ? WHERE id = ?", b.DB.Replica(), lost)
	}))
	running := start()
	for _, step := range []struct {
		after time.Duration
		want  models.Status
	}{{59 * time.Second, models.Assigned}, {time.Second, models.Failed}} {
		b.Clock.Advance(step.after)
		must(t, b.Sweep(t.Context()))
		for id, want := range map[string]models.Status{lost: step.want, running: models.Assigned} {
			task, err := b.Task(t.Context(), poster.AgentID, id)
			must(t, err)
			if task.Status != want {
				t.Errorf("after %s a hire is %s, want %s", step.after, task.Status, want)
			}
		}
	}
	close(end)
	b.Wait(t.Context())
	b.Verified()
}

// TestHire_panics: a panic while an agent is called is a failure of that hire, in
// the background too.
func TestHire_panics(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker := b.Agent(), b.Agent()
	b.Hired.Outcome = func(context.Context, *models.Task, market.Terms) (market.Outcome, error) { panic("a fault") }
	_, err := b.Execute(t.Context(), poster, market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 20})
	wantCode(t, err, models.ExecutionFailed)
	out, err := b.StartExecution(t.Context(), poster, market.StartExecutionInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 20})
	must(t, err)
	b.Wait(t.Context())
	task, err := b.Task(t.Context(), poster.AgentID, out.Task.ID)
	must(t, err)
	if task.Status != models.Failed {
		t.Errorf("the hire is %s", task.Status)
	}
	wantBalances(t, b, poster, 100, 0)
	b.Verified()
}
