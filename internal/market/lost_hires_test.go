package market_test

import (
	"context"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestSweep_refundsLostHires: a hire that this process has committed but does not run is
// refunded after a minute. A running hire is not.
func TestSweep_refundsLostHires(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker := b.NewAgent(), b.NewAgent()
	started, end := make(chan struct{}), make(chan struct{})
	b.FakeRunner.OutcomeFunc = func(context.Context, *models.Task, market.RunOptions) (market.RunResult, error) {
		started <- struct{}{}
		<-end
		return market.RunResult{Promised: true}, nil
	}
	start := func() string {
		out, err := b.StartExecution(t.Context(), poster, market.StartExecutionInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 20})
		testutil.Must(t, err)
		<-started
		return out.Task.ID
	}
	lost := start()
	end <- struct{}{}
	b.WaitExecutions(t.Context())
	testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.ExecOne("UPDATE tasks SET replica = ? WHERE id = ?", b.DB.ReplicaID(), lost)
	}))
	running := start()
	for _, step := range []struct {
		after time.Duration
		want  models.Status
	}{{59 * time.Second, models.Assigned}, {time.Second, models.Failed}} {
		b.Clock.Advance(step.after)
		testutil.Must(t, b.Sweep(t.Context()))
		for id, want := range map[string]models.Status{lost: step.want, running: models.Assigned} {
			task, err := b.Task(t.Context(), poster.AgentID, id)
			testutil.Must(t, err)
			if task.Status != want {
				t.Errorf("after %s a hire is %s, want %s", step.after, task.Status, want)
			}
		}
	}
	close(end)
	b.WaitExecutions(t.Context())
	b.VerifyLedger()
}
