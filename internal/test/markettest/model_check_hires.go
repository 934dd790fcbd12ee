package markettest

import (
	"context"
	"time"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// startExecution hires an agent in the background. The agent promises a result, returns one,
// or returns an empty one, which is a failure.
func (w *modelCheck) startExecution(r *rapid.T) {
	poster, worker := rapid.SampledFrom(w.agents).Draw(r, "poster"), rapid.SampledFrom(w.agents).Draw(r, "worker")
	minutes := rapid.IntRange(1, 24*60).Draw(r, "deadline")
	outcome := rapid.SampledFrom([]market.RunResult{{Promised: true}, {Result: "done"}, {}}).Draw(r, "outcome")
	w.FakeRunner.OutcomeFunc = func(context.Context, *models.Task, market.RunOptions) (market.RunResult, error) { return outcome, nil }
	out, err := w.StartExecution(r.Context(), poster.actor, market.StartExecutionInput{
		AgentID: worker.actor.AgentID, TaskDescription: "D", Budget: 11, DeadlineMinutes: &minutes,
	})
	w.WaitExecutions(r.Context())
	w.FakeRunner.OutcomeFunc = nil
	if poster == worker || poster.available < 11 {
		w.checkCode(r, err, map[bool]models.Code{true: models.Forbidden, false: models.InsufficientFunds}[poster == worker])
		return
	}
	w.checkCode(r, err, "")
	task := &taskModel{
		id: out.Task.ID, poster: poster, worker: worker, budget: 11, status: models.Assigned, direct: true,
		leaseUntil: w.Clock.Now().Add(time.Duration(minutes) * time.Minute),
	}
	poster.available -= 11
	switch {
	case outcome.Result != "":
		task.status = models.Completed
		worker.available += 9
	case !outcome.Promised: // an empty result
		task.refund(models.Failed)
	}
	w.tasks = append(w.tasks, task)
}

// drawHire draws an agent and a direct hire.
func (w *modelCheck) drawHire(r *rapid.T) (*agentModel, *taskModel) {
	var hires []*taskModel
	for _, task := range w.tasks {
		if task.direct {
			hires = append(hires, task)
		}
	}
	if len(hires) == 0 {
		r.Skip("no direct hire")
	}
	return rapid.SampledFrom(w.agents).Draw(r, "agent"), rapid.SampledFrom(hires).Draw(r, "hire")
}

// completeHire completes a hire.
func (w *modelCheck) completeHire(r *rapid.T) {
	agent, task := w.drawHire(r)
	_, err := w.api.Complete(r.Context(), agent.actor, task.id, "result")
	if w.checkHireError(r, agent, task, task.worker, err) {
		task.status = models.Completed
		agent.available += task.budget * 9 / 10
	}
}

// releaseHire releases a hire.
func (w *modelCheck) releaseHire(r *rapid.T) {
	agent, task := w.drawHire(r)
	_, err := w.api.Release(r.Context(), agent.actor, task.id)
	if w.checkHireError(r, agent, task, task.worker, err) {
		task.refund(models.Failed)
	}
}

// cancelHire cancels a hire.
func (w *modelCheck) cancelHire(r *rapid.T) {
	agent, task := w.drawHire(r)
	_, err := w.api.Cancel(r.Context(), agent.actor, task.id)
	if w.checkHireError(r, agent, task, task.poster, err) {
		task.refund(models.Cancelled)
	}
}

// checkHireError checks the error of an operation that only the allowed agent can run on a
// running hire, and reports whether it must have succeeded.
func (w *modelCheck) checkHireError(r *rapid.T, agent *agentModel, task *taskModel, allowed *agentModel, err error) bool {
	switch {
	case agent != task.poster && agent != task.worker:
		w.checkCode(r, err, models.NotFound)
	case agent != allowed:
		w.checkCode(r, err, models.Forbidden)
	case task.statusAt(w.Clock.Now()) != models.Assigned:
		w.checkCode(r, err, models.Conflict)
	default:
		w.checkCode(r, err, "")
		return true
	}
	return false
}
