package markettest

import (
	"context"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// Verbs are what can be done with a market and what can be seen of it, as
// market.Market has it. A door has the same.
type Verbs interface {
	Post(ctx context.Context, actor auth.Actor, in market.PostTaskInput) (market.TaskResult, error)
	Accept(ctx context.Context, actor auth.Actor, taskID string) (market.TaskResult, error)
	Complete(ctx context.Context, actor auth.Actor, taskID, result string) (market.TaskResult, error)
	Cancel(ctx context.Context, actor auth.Actor, taskID string) (market.TaskResult, error)
	Release(ctx context.Context, actor auth.Actor, taskID string) (market.TaskResult, error)
	Extend(ctx context.Context, actor auth.Actor, taskID string, leaseMinutes *int) (models.Task, error)
	Rate(ctx context.Context, actor auth.Actor, in market.RateTaskInput) (models.Task, error)
	Execute(ctx context.Context, actor auth.Actor, in market.ExecuteInput) (market.TaskResult, error)
	Task(ctx context.Context, viewerID, id string) (*models.Task, error)
	Wallet(ctx context.Context, agentID string) (*models.Wallet, error)
}

// Walk walks a market at random, verbs and jumps of the clock, beside a model
// that fits on a page. Open makes the market with so many agents. After every
// step the verb has answered as the model says, every balance and every task is
// the model's, and the laws of the ledger hold. In the end time alone ends every
// task and brings all credits home.
func Walk(tb testing.TB, r *rapid.T, open func(tb testing.TB, agents int) (*Bundle, Verbs, []auth.Actor)) {
	tb.Helper()
	w := newWalk(check{TB: tb, rapid: r}, open)
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
		}
	}
	for i, task := range w.tasks {
		if !task.ended() {
			r.Errorf("task %d is %s for ever", i, task.status)
		}
	}
}

// walk is a market and the model beside it.
type walk struct {
	*Bundle
	verbs  Verbs
	agents []*agentModel
	tasks  []*taskModel
}

type agentModel struct {
	actor           auth.Actor
	available, held models.Credits
}

// taskModel is a task as the market keeps it; what time has made of it is in at.
type taskModel struct {
	id                    string
	poster, worker        *agentModel
	budget                models.Credits
	status                models.Status
	lapses                int
	lease                 time.Duration
	openUntil, leaseUntil time.Time
	direct, rated         bool
}

func newWalk(c check, open func(testing.TB, int) (*Bundle, Verbs, []auth.Actor)) *walk {
	w := &walk{}
	var actors []auth.Actor
	w.Bundle, w.verbs, actors = open(c, 3)
	for _, actor := range actors {
		w.agents = append(w.agents, &agentModel{actor: actor, available: 100})
	}
	return w
}

func (t *taskModel) ended() bool {
	return t.status != models.Open && t.status != models.Assigned
}

// at is where the task stands when somebody looks.
func (t *taskModel) at(now time.Time) models.Status {
	offerOver := !now.Before(t.openUntil)
	switch {
	case t.direct && t.status == models.Assigned && !now.Before(t.leaseUntil):
		return models.Failed
	case t.status == models.Open && offerOver:
		return models.Expired
	case t.status == models.Assigned && !now.Before(t.leaseUntil) && (offerOver || t.lapses == 2):
		return models.Expired
	case t.status == models.Assigned && !now.Before(t.leaseUntil):
		return models.Open
	default:
		return t.status
	}
}

// refund ends the task and gives its budget back to its poster.
func (t *taskModel) refund(end models.Status) {
	if t.status == models.Open {
		t.poster.held -= t.budget
	}
	t.poster.available += t.budget
	t.status = end
}

func (w *walk) post(r *rapid.T) {
	poster := rapid.SampledFrom(w.agents).Draw(r, "poster")
	budget := models.Credits(rapid.IntRange(1, 60).Draw(r, "budget"))
	open, lease := rapid.IntRange(1, 5000).Draw(r, "open"), rapid.IntRange(1, 3000).Draw(r, "lease")
	out, err := w.verbs.Post(r.Context(), poster.actor, market.PostTaskInput{
		Title: "T", Description: "D", Budget: budget, OpenForMinutes: &open, LeaseMinutes: &lease,
	})
	switch {
	case budget < 2:
		w.answers(r, err, models.InvalidInput)
	case budget > poster.available:
		w.answers(r, err, models.InsufficientFunds)
	default:
		w.answers(r, err, "")
		poster.available -= budget
		poster.held += budget
		w.tasks = append(w.tasks, &taskModel{
			id: out.Task.ID, poster: poster, budget: budget, status: models.Open, lease: time.Duration(lease) * time.Minute,
			openUntil: w.Clock.Now().Add(time.Duration(open) * time.Minute),
		})
	}
}

// draw picks an agent and a posted task for a verb.
func (w *walk) draw(r *rapid.T) (*agentModel, *taskModel) {
	var posted []*taskModel
	for _, task := range w.tasks {
		if !task.direct {
			posted = append(posted, task)
		}
	}
	if len(posted) == 0 {
		r.Skip("nothing is posted")
	}
	return rapid.SampledFrom(w.agents).Draw(r, "agent"), rapid.SampledFrom(posted).Draw(r, "task")
}

func (w *walk) accept(r *rapid.T) {
	agent, task := w.draw(r)
	_, err := w.verbs.Accept(r.Context(), agent.actor, task.id)
	now := w.Clock.Now()
	switch {
	case agent == task.poster:
		w.answers(r, err, models.Forbidden)
	case task.at(now) != models.Open:
		w.answers(r, err, models.Conflict)
	default:
		w.answers(r, err, "")
		if task.status == models.Open {
			task.poster.held -= task.budget
		} else {
			task.lapses++
		}
		task.status, task.worker, task.leaseUntil = models.Assigned, agent, now.Add(task.lease)
		task.offerAgain()
	}
}

// offerAgain leaves time for one more lease after this one.
func (t *taskModel) offerAgain() {
	if again := t.leaseUntil.Add(t.lease); again.After(t.openUntil) {
		t.openUntil = again
	}
}

// work runs a verb that only the worker has, late as it may be.
func (w *walk) work(r *rapid.T, verb func(*agentModel, *taskModel) error, then func(*taskModel)) {
	agent, task := w.draw(r)
	before := *task
	err := verb(agent, task)
	status := before.at(w.Clock.Now())
	switch {
	case before.status == models.Assigned && before.worker == agent && status != models.Expired:
		w.answers(r, err, "")
		then(task)
	case status == models.Assigned:
		w.answers(r, err, models.Forbidden)
	default:
		w.answers(r, err, models.Conflict)
	}
}

func (w *walk) complete(r *rapid.T) {
	w.work(r, func(agent *agentModel, task *taskModel) error {
		_, err := w.verbs.Complete(r.Context(), agent.actor, task.id, "result")
		return err
	}, func(task *taskModel) {
		task.status = models.Completed
		task.worker.available += task.budget * 9 / 10
	})
}

func (w *walk) release(r *rapid.T) {
	w.work(r, func(agent *agentModel, task *taskModel) error {
		_, err := w.verbs.Release(r.Context(), agent.actor, task.id)
		return err
	}, func(task *taskModel) {
		task.status, task.worker = models.Open, nil
		task.poster.held += task.budget
	})
}

func (w *walk) extend(r *rapid.T) {
	w.work(r, func(agent *agentModel, task *taskModel) error {
		_, err := w.verbs.Extend(r.Context(), agent.actor, task.id, nil)
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
	_, err := w.verbs.Cancel(r.Context(), agent.actor, task.id)
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
	_, err := w.verbs.Rate(r.Context(), agent.actor, market.RateTaskInput{TaskID: task.id, Score: 4})
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
	out, err := w.verbs.Execute(r.Context(), poster.actor, market.ExecuteInput{AgentID: worker.actor.AgentID, TaskDescription: "D", Budget: budget})
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
		wallet, err := w.verbs.Wallet(w.T.Context(), agent.actor.AgentID)
		if err != nil || wallet.Available != agent.available || wallet.Held != agent.held {
			w.T.Fatalf("agent %d has %v (%v), want %d and %d held", i, wallet, err, agent.available, agent.held)
		}
	}
	for i, task := range w.tasks {
		got, err := w.verbs.Task(w.T.Context(), task.poster.actor.AgentID, task.id)
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

// TempDir returns a folder that is removed at the end of the check.
func (c check) TempDir() string {
	dir, err := os.MkdirTemp("", "agentmarket-walk-")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
