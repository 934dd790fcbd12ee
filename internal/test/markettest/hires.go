package markettest

import (
	"context"
	"time"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// start hires an agent that promises its result, or not.
func (w *walk) start(r *rapid.T) {
	poster, worker := rapid.SampledFrom(w.agents).Draw(r, "poster"), rapid.SampledFrom(w.agents).Draw(r, "worker")
	within := rapid.IntRange(1, 24*60).Draw(r, "deadline")
	outcome := rapid.SampledFrom([]market.Outcome{{Promised: true}, {Result: "done"}, {}}).Draw(r, "outcome")
	w.Hired.Outcome = func(context.Context, *models.Task, market.Terms) (market.Outcome, error) { return outcome, nil }
	out, err := w.StartExecution(r.Context(), poster.actor, market.StartExecutionInput{
		AgentID: worker.actor.AgentID, TaskDescription: "D", Budget: 11, DeadlineMinutes: &within,
	})
	w.Wait(r.Context())
	w.Hired.Outcome = nil
	if poster == worker || poster.available < 11 {
		w.answers(r, err, map[bool]models.Code{true: models.Forbidden, false: models.InsufficientFunds}[poster == worker])
		return
	}
	w.answers(r, err, "")
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

// hired picks an agent and a hire for a verb.
func (w *walk) hired(r *rapid.T) (*agentModel, *taskModel) {
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

// keep has an agent complete a hire.
func (w *walk) keep(r *rapid.T) {
	agent, task := w.hired(r)
	_, err := w.verbs.Complete(r.Context(), agent.actor, task.id, "kept")
	if w.onHire(r, agent, task, task.worker, err) {
		task.status = models.Completed
		agent.available += task.budget * 9 / 10
	}
}

// giveUp has an agent give a hire back.
func (w *walk) giveUp(r *rapid.T) {
	agent, task := w.hired(r)
	_, err := w.verbs.Release(r.Context(), agent.actor, task.id)
	if w.onHire(r, agent, task, task.worker, err) {
		task.refund(models.Failed)
	}
}

// revoke has one take a hire back.
func (w *walk) revoke(r *rapid.T) {
	agent, task := w.hired(r)
	_, err := w.verbs.Cancel(r.Context(), agent.actor, task.id)
	if w.onHire(r, agent, task, task.poster, err) {
		task.refund(models.Cancelled)
	}
}

// onHire reports whether a verb was due to the agent who may, and holds it to that.
func (w *walk) onHire(r *rapid.T, agent *agentModel, task *taskModel, may *agentModel, err error) bool {
	switch {
	case agent != task.poster && agent != task.worker:
		w.answers(r, err, models.NotFound)
	case agent != may:
		w.answers(r, err, models.Forbidden)
	case task.at(w.Clock.Now()) != models.Assigned:
		w.answers(r, err, models.Conflict)
	default:
		w.answers(r, err, "")
		return true
	}
	return false
}
