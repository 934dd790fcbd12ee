package markettest

import (
	"context"
	"time"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// startExecution hires an agent that promises its result, or not.
func (w *modelCheck) startExecution(r *rapid.T) {
	poster, worker := rapid.SampledFrom(w.agents).Draw(r, "poster"), rapid.SampledFrom(w.agents).Draw(r, "worker")
	within := rapid.IntRange(1, 24*60).Draw(r, "deadline")
	outcome := rapid.SampledFrom([]market.RunResult{{Promised: true}, {Result: "done"}, {}}).Draw(r, "outcome")
	w.FakeRunner.OutcomeFunc = func(context.Context, *models.Task, market.RunOptions) (market.RunResult, error) { return outcome, nil }
	out, err := w.StartExecution(r.Context(), poster.actor, market.StartExecutionInput{
		AgentID: worker.actor.AgentID, TaskDescription: "D", Budget: 11, DeadlineMinutes: &within,
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
		leaseUntil: w.Clock.Now().Add(time.Duration(within) * time.Minute),
	}
	poster.available -= 11
	switch {
	case outcome.Result != "":
		task.status = models.Completed
		worker.available += 9
	case !outcome.Promised: // an empty result is none
		task.refund(models.Failed)
	}
	w.tasks = append(w.tasks, task)
}

// drawHire picks an agent and a hire for a verb.
func (w *modelCheck) drawHire(r *rapid.T) (*agentModel, *taskModel) {
	var hires []*taskModel
	for _, task := range w.tasks {
		if task.direct {
			hires = append(hires, task)
		}
	}
	if len(hires) == 0 {
		r.Skip("nobody is hired")
	}
	return rapid.SampledFrom(w.agents).Draw(r, "agent"), rapid.SampledFrom(hires).Draw(r, "hire")
}

// completeHire has an agent complete a hire.
func (w *modelCheck) completeHire(r *rapid.T) {
	agent, task := w.drawHire(r)
	_, err := w.api.Complete(r.Context(), agent.actor, task.id, "kept")
	if w.checkHireError(r, agent, task, task.worker, err) {
		task.status = models.Completed
		agent.available += task.budget * 9 / 10
	}
}

// releaseHire has an agent give a hire back.
func (w *modelCheck) releaseHire(r *rapid.T) {
	agent, task := w.drawHire(r)
	_, err := w.api.Release(r.Context(), agent.actor, task.id)
	if w.checkHireError(r, agent, task, task.worker, err) {
		task.refund(models.Failed)
	}
}

// cancelHire has one take a hire back.
func (w *modelCheck) cancelHire(r *rapid.T) {
	agent, task := w.drawHire(r)
	_, err := w.api.Cancel(r.Context(), agent.actor, task.id)
	if w.checkHireError(r, agent, task, task.poster, err) {
		task.refund(models.Cancelled)
	}
}

// checkHireError reports whether a verb was due to the agent who may, and holds it to that.
func (w *modelCheck) checkHireError(r *rapid.T, agent *agentModel, task *taskModel, may *agentModel, err error) bool {
	switch {
	case agent != task.poster && agent != task.worker:
		w.checkCode(r, err, models.NotFound)
	case agent != may:
		w.checkCode(r, err, models.Forbidden)
	case task.statusAt(w.Clock.Now()) != models.Assigned:
		w.checkCode(r, err, models.Conflict)
	default:
		w.checkCode(r, err, "")
		return true
	}
	return false
}
