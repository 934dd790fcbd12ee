package market_test

import (
	"flag"
	"os"
	"testing"

	"pgregory.net/rapid"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/internal/engines"
	"agentmarket.space/server/internal/markettest"
)

// TestMain has properties looked at 30 times on PostgreSQL, and 100 on SQLite: each
// law after each step is a round trip there. -rapid.checks says otherwise.
func TestMain(m *testing.M) {
	if engines.OnPostgres() {
		if err := flag.Set("rapid.checks", "30"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// TestProperty walks the market beside its model; see markettest.Walk.
func TestProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
<<<<<<< HEAD
		markettest.Walk(t, r, func(tb testing.TB, agents int) (*markettest.Bundle, markettest.Verbs, []auth.Actor) {
			tb.Helper()
			b := markettest.New(tb)
			var actors []auth.Actor
			for range agents {
				actors = append(actors, b.Agent())
=======
		w := newWalk(check{TB: t, rapid: r})
		r.Repeat(map[string]func(*rapid.T){
			"":        func(*rapid.T) { w.compare() },
			"post":    w.post,
			"accept":  w.accept,
			"finish":  w.complete,
			"cancel":  w.cancel,
			"release": w.release,
			"extend":  w.extend,
			"rate":    w.rate,
			"hire":    w.hire,
			"start":   w.start,
			"keep":    w.keep,
			"give up": w.giveUp,
			"revoke":  w.revoke,
			"jump": func(r *rapid.T) {
				w.Clock.Advance(time.Duration(rapid.IntRange(1, 4000).Draw(r, "minutes")) * time.Minute)
			},
			"sweep": func(*rapid.T) { w.sweep() },
		})
		w.Clock.Advance(365 * 24 * time.Hour)
		w.sweep()
		w.compare()
		for i, agent := range w.agents {
			if agent.held != 0 {
				r.Errorf("agent %d has %d credits set aside for ever", i, agent.held)
>>>>>>> exec
			}
			return b, b.Market, actors
		})
	})
}
<<<<<<< HEAD
=======

func (w *walk) release(r *rapid.T) {
	w.work(r, func(agent *agentModel, task *taskModel) error {
		_, err := w.Release(r.Context(), agent.actor, task.id)
		return err
	}, func(task *taskModel) {
		task.status, task.worker = models.Open, nil
		task.poster.held += task.budget
	})
}

func (w *walk) extend(r *rapid.T) {
	w.work(r, func(agent *agentModel, task *taskModel) error {
		_, err := w.Extend(r.Context(), agent.actor, task.id, nil)
		return err
	}, func(task *taskModel) {
		if until := w.Clock.Now().Add(task.lease); until.After(task.leaseUntil) {
			task.leaseUntil = until
		}
		task.offerAgain()
	})
}

func (w *walk) cancel(r *rapid.T) {
	agent, task := w.draw(r)
	_, err := w.Cancel(r.Context(), agent.actor, task.id)
	switch {
	case agent != task.poster:
		w.answers(r, err, models.Forbidden)
	case task.at(w.Clock.Now()) != models.Open:
		w.answers(r, err, models.Conflict)
	default:
		w.answers(r, err, "")
		task.refund(models.Cancelled)
	}
}

func (w *walk) rate(r *rapid.T) {
	agent, task := w.draw(r)
	_, err := w.Rate(r.Context(), agent.actor, market.RateTaskInput{TaskID: task.id, Score: 4})
	switch {
	case agent != task.poster:
		w.answers(r, err, models.Forbidden)
	case task.status != models.Completed || task.rated:
		w.answers(r, err, models.Conflict)
	default:
		w.answers(r, err, "")
		task.rated = true
	}
}

func (w *walk) hire(r *rapid.T) {
	poster, worker := rapid.SampledFrom(w.agents).Draw(r, "poster"), rapid.SampledFrom(w.agents).Draw(r, "worker")
	budget := models.Credits(rapid.IntRange(5, 60).Draw(r, "budget")) // the price is 10
	failure := rapid.SampledFrom([]models.Code{"", models.ExecutionFailed, models.ExecutionTimeout}).Draw(r, "failure")
	w.Hired.Answer = func(context.Context, *models.Agent, *models.Task) (string, error) {
		if failure != "" {
			return "", models.Errorf(failure, "no")
		}
		return "done", nil
	}
	out, err := w.Execute(r.Context(), poster.actor, market.ExecuteInput{AgentID: worker.actor.AgentID, TaskDescription: "D", Budget: budget})
	switch {
	case poster == worker:
		w.answers(r, err, models.Forbidden)
	case budget < 10:
		w.answers(r, err, models.InvalidInput)
	case budget > poster.available:
		w.answers(r, err, models.InsufficientFunds)
	default:
		w.answers(r, err, failure)
		if failure == "" {
			poster.available -= budget
			worker.available += budget * 9 / 10
			w.tasks = append(w.tasks, &taskModel{id: out.Task.ID, poster: poster, worker: worker, budget: budget, status: models.Completed, direct: true})
		}
	}
}

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
	_, err := w.Complete(r.Context(), agent.actor, task.id, "kept")
	if w.onHire(r, agent, task, task.worker, err) {
		task.status = models.Completed
		agent.available += task.budget * 9 / 10
	}
}

// giveUp has an agent give a hire back.
func (w *walk) giveUp(r *rapid.T) {
	agent, task := w.hired(r)
	_, err := w.Release(r.Context(), agent.actor, task.id)
	if w.onHire(r, agent, task, task.worker, err) {
		task.refund(models.Failed)
	}
}

// revoke has one take a hire back.
func (w *walk) revoke(r *rapid.T) {
	agent, task := w.hired(r)
	_, err := w.Cancel(r.Context(), agent.actor, task.id)
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

// sweep ends what time has ended.
func (w *walk) sweep() {
	if err := w.Sweep(w.T.Context()); err != nil {
		w.T.Fatal(err)
	}
	for _, task := range w.tasks {
		if end := task.at(w.Clock.Now()); !task.ended() && (end == models.Expired || end == models.Failed) {
			task.refund(end)
		}
	}
}

// answers wants a verb to have been refused with a code, or done when it is "".
func (w *walk) answers(r *rapid.T, err error, want models.Code) {
	if want == "" && err != nil || want != "" && (err == nil || models.CodeOf(err) != want) {
		r.Fatalf("answered %v, want %q", err, want)
	}
}

// compare holds everything to the model.
func (w *walk) compare() {
	for i, agent := range w.agents {
		if available, held := w.Balances(agent.actor); available != agent.available || held != agent.held {
			w.T.Fatalf("agent %d has %d and %d held, want %d and %d", i, available, held, agent.available, agent.held)
		}
	}
	for i, task := range w.tasks {
		got, err := w.Task(w.T.Context(), task.poster.actor.AgentID, task.id)
		if want := task.at(w.Clock.Now()); err != nil || got.Status != want || task.direct == (got.Origin == models.FromMarketplace) {
			w.T.Fatalf("task %d is %v (%v), want %s", i, got, err, want)
		}
	}
	w.Verified()
}

// check is one check of a property as a test: it fails, and is cleaned up after,
// by itself.
type check struct {
	testing.TB
	rapid *rapid.T
}

// Cleanup has fn called at the end of the check.
func (c check) Cleanup(fn func()) { c.rapid.Cleanup(fn) }

// Context returns a context that ends with the check.
func (c check) Context() context.Context { return c.rapid.Context() }

// Errorf fails the check.
func (c check) Errorf(format string, args ...any) { c.rapid.Errorf(format, args...) }

// Fatal fails and ends the check.
func (c check) Fatal(args ...any) { c.rapid.Fatal(args...) }

// Fatalf fails and ends the check.
func (c check) Fatalf(format string, args ...any) { c.rapid.Fatalf(format, args...) }

// Helper does nothing: rapid prints no lines.
func (c check) Helper() {}
>>>>>>> exec
