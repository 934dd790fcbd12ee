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

// MarketAPI is the part of market.Market that [CheckModel] uses. GraphQL and REST clients
// can implement it too.
type MarketAPI interface {
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

// CheckModel runs random operations and clock jumps against a market and a small model of
// it. Open opens the market with a number of agents. After every step the result of the
// operation, every balance and every task must match the model, and the ledger must be
// valid. At the end the clock jumps a year, after which every task has ended and no
// credits are held.
func CheckModel(tb testing.TB, r *rapid.T, open func(tb testing.TB, agents int) (*Bundle, MarketAPI, []auth.Actor)) {
	tb.Helper()
	w := newModelCheck(rapidTB{TB: tb, rapid: r}, open)
	r.Repeat(map[string]func(*rapid.T){
		"":        func(*rapid.T) { w.checkState() },
		"post":    w.post,
		"accept":  w.accept,
		"finish":  w.complete,
		"cancel":  w.cancel,
		"release": w.release,
		"extend":  w.extend,
		"rate":    w.rate,
		"hire":    w.executeHire,
		"start":   w.startExecution,
		"keep":    w.completeHire,
		"give up": w.releaseHire,
		"revoke":  w.cancelHire,
		"jump": func(r *rapid.T) {
			w.Clock.Advance(time.Duration(rapid.IntRange(1, 4000).Draw(r, "minutes")) * time.Minute)
		},
		"sweep": func(*rapid.T) { w.sweep() },
	})
	w.Clock.Advance(365 * 24 * time.Hour)
	w.sweep()
	w.checkState()
	for i, agent := range w.agents {
		if agent.held != 0 {
			r.Errorf("agent %d still has %d held credits", i, agent.held)
		}
	}
	for i, task := range w.tasks {
		if !task.hasEnded() {
			r.Errorf("task %d is still %s", i, task.status)
		}
	}
}

// modelCheck is a market and its model.
type modelCheck struct {
	*Bundle
	api    MarketAPI
	agents []*agentModel
	tasks  []*taskModel
}

type agentModel struct {
	actor           auth.Actor
	available, held models.Credits
}

// taskModel is a task as it is stored. Its status at a time is statusAt.
type taskModel struct {
	id                    string
	poster, worker        *agentModel
	budget                models.Credits
	status                models.Status
	lapsedLeases          int
	lease                 time.Duration
	openUntil, leaseUntil time.Time
	direct, rated         bool
}

func newModelCheck(c rapidTB, open func(testing.TB, int) (*Bundle, MarketAPI, []auth.Actor)) *modelCheck {
	w := &modelCheck{}
	var actors []auth.Actor
	w.Bundle, w.api, actors = open(c, 3)
	for _, actor := range actors {
		w.agents = append(w.agents, &agentModel{actor: actor, available: 100})
	}
	return w
}

func (t *taskModel) hasEnded() bool {
	return t.status != models.Open && t.status != models.Assigned
}

// statusAt returns the status that the task has at a time.
func (t *taskModel) statusAt(now time.Time) models.Status {
	openUntilPassed := !now.Before(t.openUntil)
	switch {
	case t.direct && t.status == models.Assigned && !now.Before(t.leaseUntil):
		return models.Failed
	case t.status == models.Open && openUntilPassed:
		return models.Expired
	case t.status == models.Assigned && !now.Before(t.leaseUntil) && (openUntilPassed || t.lapsedLeases == 2):
		return models.Expired
	case t.status == models.Assigned && !now.Before(t.leaseUntil):
		return models.Open
	default:
		return t.status
	}
}

// refund ends the task and refunds its poster.
func (t *taskModel) refund(end models.Status) {
	if t.status == models.Open {
		t.poster.held -= t.budget
	}
	t.poster.available += t.budget
	t.status = end
}

func (w *modelCheck) post(r *rapid.T) {
	poster := rapid.SampledFrom(w.agents).Draw(r, "poster")
	budget := models.Credits(rapid.IntRange(1, 60).Draw(r, "budget"))
	open, lease := rapid.IntRange(1, 5000).Draw(r, "open"), rapid.IntRange(1, 3000).Draw(r, "lease")
	out, err := w.api.Post(r.Context(), poster.actor, market.PostTaskInput{
		Title: "T", Description: "D", Budget: budget, OpenForMinutes: &open, LeaseMinutes: &lease,
	})
	switch {
	case budget < 2:
		w.checkCode(r, err, models.InvalidInput)
	case budget > poster.available:
		w.checkCode(r, err, models.InsufficientFunds)
	default:
		w.checkCode(r, err, "")
		poster.available -= budget
		poster.held += budget
		w.tasks = append(w.tasks, &taskModel{
			id: out.Task.ID, poster: poster, budget: budget, status: models.Open, lease: time.Duration(lease) * time.Minute,
			openUntil: w.Clock.Now().Add(time.Duration(open) * time.Minute),
		})
	}
}

// drawTask draws an agent and a posted task.
func (w *modelCheck) drawTask(r *rapid.T) (*agentModel, *taskModel) {
	var posted []*taskModel
	for _, task := range w.tasks {
		if !task.direct {
			posted = append(posted, task)
		}
	}
	if len(posted) == 0 {
		r.Skip("no posted task")
	}
	return rapid.SampledFrom(w.agents).Draw(r, "agent"), rapid.SampledFrom(posted).Draw(r, "task")
}

func (w *modelCheck) accept(r *rapid.T) {
	agent, task := w.drawTask(r)
	_, err := w.api.Accept(r.Context(), agent.actor, task.id)
	now := w.Clock.Now()
	switch {
	case agent == task.poster:
		w.checkCode(r, err, models.Forbidden)
	case task.statusAt(now) != models.Open:
		w.checkCode(r, err, models.Conflict)
	default:
		w.checkCode(r, err, "")
		if task.status == models.Open {
			task.poster.held -= task.budget
		} else {
			task.lapsedLeases++
		}
		task.status, task.worker, task.leaseUntil = models.Assigned, agent, now.Add(task.lease)
		task.extendOpenUntil()
	}
}

// extendOpenUntil keeps the task open for one more lease after this one.
func (t *taskModel) extendOpenUntil() {
	if again := t.leaseUntil.Add(t.lease); again.After(t.openUntil) {
		t.openUntil = again
	}
}

// runAsWorker runs an operation that only the worker can run, even after its lease. After
// a success it calls update.
func (w *modelCheck) runAsWorker(r *rapid.T, operation func(*agentModel, *taskModel) error, update func(*taskModel)) {
	agent, task := w.drawTask(r)
	before := *task
	err := operation(agent, task)
	status := before.statusAt(w.Clock.Now())
	switch {
	case before.status == models.Assigned && before.worker == agent && status != models.Expired:
		w.checkCode(r, err, "")
		update(task)
	case status == models.Assigned:
		w.checkCode(r, err, models.Forbidden)
	default:
		w.checkCode(r, err, models.Conflict)
	}
}

func (w *modelCheck) complete(r *rapid.T) {
	w.runAsWorker(r, func(agent *agentModel, task *taskModel) error {
		_, err := w.api.Complete(r.Context(), agent.actor, task.id, "result")
		return err
	}, func(task *taskModel) {
		task.status = models.Completed
		task.worker.available += task.budget * 9 / 10
	})
}

func (w *modelCheck) release(r *rapid.T) {
	w.runAsWorker(r, func(agent *agentModel, task *taskModel) error {
		_, err := w.api.Release(r.Context(), agent.actor, task.id)
		return err
	}, func(task *taskModel) {
		task.status, task.worker = models.Open, nil
		task.poster.held += task.budget
	})
}

func (w *modelCheck) extend(r *rapid.T) {
	w.runAsWorker(r, func(agent *agentModel, task *taskModel) error {
		_, err := w.api.Extend(r.Context(), agent.actor, task.id, nil)
		return err
	}, func(task *taskModel) {
		if until := w.Clock.Now().Add(task.lease); until.After(task.leaseUntil) {
			task.leaseUntil = until
		}
		task.extendOpenUntil()
	})
}

func (w *modelCheck) cancel(r *rapid.T) {
	agent, task := w.drawTask(r)
	_, err := w.api.Cancel(r.Context(), agent.actor, task.id)
	switch {
	case agent != task.poster:
		w.checkCode(r, err, models.Forbidden)
	case task.statusAt(w.Clock.Now()) != models.Open:
		w.checkCode(r, err, models.Conflict)
	default:
		w.checkCode(r, err, "")
		task.refund(models.Cancelled)
	}
}

func (w *modelCheck) rate(r *rapid.T) {
	agent, task := w.drawTask(r)
	_, err := w.api.Rate(r.Context(), agent.actor, market.RateTaskInput{TaskID: task.id, Score: 4})
	switch {
	case agent != task.poster:
		w.checkCode(r, err, models.Forbidden)
	case task.status != models.Completed || task.rated:
		w.checkCode(r, err, models.Conflict)
	default:
		w.checkCode(r, err, "")
		task.rated = true
	}
}

func (w *modelCheck) executeHire(r *rapid.T) {
	poster, worker := rapid.SampledFrom(w.agents).Draw(r, "poster"), rapid.SampledFrom(w.agents).Draw(r, "worker")
	budget := models.Credits(rapid.IntRange(5, 60).Draw(r, "budget")) // the price is 10
	failure := rapid.SampledFrom([]models.Code{"", models.ExecutionFailed, models.ExecutionTimeout}).Draw(r, "failure")
	w.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
		if failure != "" {
			return "", models.Errorf(failure, "the agent failed")
		}
		return "done", nil
	}
	out, err := w.api.Execute(r.Context(), poster.actor, market.ExecuteInput{AgentID: worker.actor.AgentID, TaskDescription: "D", Budget: budget})
	switch {
	case poster == worker:
		w.checkCode(r, err, models.Forbidden)
	case budget < 10:
		w.checkCode(r, err, models.InvalidInput)
	case budget > poster.available:
		w.checkCode(r, err, models.InsufficientFunds)
	default:
		w.checkCode(r, err, failure)
		if failure == "" {
			poster.available -= budget
			worker.available += budget * 9 / 10
			w.tasks = append(w.tasks, &taskModel{id: out.Task.ID, poster: poster, worker: worker, budget: budget, status: models.Completed, direct: true})
		}
	}
}

// sweep runs a sweep and ends the same tasks in the model.
func (w *modelCheck) sweep() {
	if err := w.Sweep(w.T.Context()); err != nil {
		w.T.Fatal(err)
	}
	for _, task := range w.tasks {
		if end := task.statusAt(w.Clock.Now()); !task.hasEnded() && (end == models.Expired || end == models.Failed) {
			task.refund(end)
		}
	}
}

// checkCode fails unless err has the code, or is nil if the code is empty.
func (w *modelCheck) checkCode(r *rapid.T, err error, want models.Code) {
	if want == "" && err != nil || want != "" && (err == nil || models.CodeOf(err) != want) {
		r.Fatalf("got error %v, want code %q", err, want)
	}
}

// checkState compares all balances and tasks with the model.
func (w *modelCheck) checkState() {
	for i, agent := range w.agents {
		wallet, err := w.api.Wallet(w.T.Context(), agent.actor.AgentID)
		if err != nil || wallet.Available != agent.available || wallet.Held != agent.held {
			w.T.Fatalf("agent %d has %v (%v), want %d and %d held", i, wallet, err, agent.available, agent.held)
		}
	}
	for i, task := range w.tasks {
		got, err := w.api.Task(w.T.Context(), task.poster.actor.AgentID, task.id)
		if want := task.statusAt(w.Clock.Now()); err != nil || got.Status != want || task.direct == (got.Origin == models.OriginMarketplace) {
			w.T.Fatalf("task %d is %v (%v), want %s", i, got, err, want)
		}
	}
	w.VerifyLedger()
}

// rapidTB is a testing.TB for one run of a property.
type rapidTB struct {
	testing.TB
	rapid *rapid.T
}

// Cleanup calls fn at the end of the run.
func (c rapidTB) Cleanup(fn func()) { c.rapid.Cleanup(fn) }

// Context returns a context that is cancelled at the end of the run.
func (c rapidTB) Context() context.Context { return c.rapid.Context() }

// Errorf marks the run as failed.
func (c rapidTB) Errorf(format string, args ...any) { c.rapid.Errorf(format, args...) }

// Fatal fails and stops the run.
func (c rapidTB) Fatal(args ...any) { c.rapid.Fatal(args...) }

// Fatalf fails and stops the run.
func (c rapidTB) Fatalf(format string, args ...any) { c.rapid.Fatalf(format, args...) }

// Helper does nothing, because rapid prints no line numbers.
func (c rapidTB) Helper() {}

// TempDir returns a directory that is removed at the end of the run.
func (c rapidTB) TempDir() string {
	dir, err := os.MkdirTemp("", "agentmarket-model-")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
