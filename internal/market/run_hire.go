package market

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/models"
)

// runHire runs the hired agent and settles the task by its outcome, unless the agent
// promised a result: then the task is the agent's until its deadline, whatever
// becomes of this process. What others made of the task meanwhile stays, and is
// returned.
func (m *Market) runHire(ctx context.Context, c *idempotency.Claim, h *hire) (out TaskResult, promised bool, err error) {
	task := h.result.Task
	running := m.executions.start(ctx, task.ID)
	defer m.executions.finish(task.ID)
	terms := RunOptions{Background: h.background, Deadline: h.deadline}
	if h.background {
		terms.OnText = func(piece string) { m.executions.publishText(task.ID, piece) }
	}
	failpoint.Hit("execute-hired")
	outcome, failure := m.callAgent(running, h, &task, terms)
	failpoint.Hit("execute-ran")
	if failure == nil && !outcome.Promised {
		failure = checkResult(outcome.Result)
	}
	var told error
	settle := func() error {
		return m.deps.DB.Write(context.WithoutCancel(ctx), func(tx *database.Tx) error {
			out, promised, told = TaskResult{}, false, failure
			held, err := c.Lock(tx)
			if err != nil {
				return err
			}
			now, err := lockTask(tx, task.ID)
			if err != nil {
				return err
			}
			if err := recordTokens(tx, task.ID, outcome.Tokens); err != nil {
				return err
			}
			switch status := now.StatusAt(m.now()); {
			case now.Status != models.Assigned: // others were there first
				told = finalError(now)
				out, err = m.withPosterWallet(tx, now)
			case status != models.Assigned:
				told = errDeadlineExceeded()
				out, err = m.settleHire(tx, held, now, "", told)
			case outcome.Promised && failure == nil:
				promised = true
				out, err = m.recordPromise(tx, now, h.deadline)
			default:
				out, err = m.settleHire(tx, held, now, outcome.Result, failure)
			}
			failpoint.Hit("execute-settled")
			return err
		})
	}
	if h.background {
		err = m.retrySettle(ctx, task.ID, settle)
	} else {
		err = settle()
	}
	if err != nil {
		return TaskResult{}, false, err
	}
	return out, promised, told
}

// callAgent runs the agent. A panic is a failure of this hire alone.
func (m *Market) callAgent(ctx context.Context, h *hire, task *models.Task, terms RunOptions) (outcome RunResult, failure error) {
	defer func() {
		if r := recover(); r != nil {
			m.deps.Logger.ErrorContext(ctx, "a hire panicked", slog.Any("panic", r), slog.String("task_id", task.ID), slog.String("stack", string(debug.Stack())))
			outcome, failure = RunResult{}, errNoResult()
		}
	}()
	return m.deps.Runner.Run(ctx, h.agent, task, terms)
}

// How long a hire in the background waits before it asks the store again to write
// down what came of it: longer each time.
const (
	minSettleBackoff = time.Second
	maxSettleBackoff = 30 * time.Second
)

// retrySettle writes until the store takes it or refuses it, ctx ends or the server stops:
// what an agent has done is not lost because the store was away.
func (m *Market) retrySettle(ctx context.Context, taskID string, write func() error) error {
	for pause := minSettleBackoff; ; pause = min(2*pause, maxSettleBackoff) {
		err := write()
		if err == nil || models.CodeOf(err) != models.Unavailable && models.CodeOf(err) != models.Internal {
			return err
		}
		m.deps.Logger.ErrorContext(ctx, "cannot settle a hire yet", slog.Any("error", err), slog.String("task_id", taskID))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
		case <-m.stopping:
		}
		timer.Stop()
		return err
	}
}

func errDeadlineExceeded() *models.Error {
	return models.Errorf(models.ExecutionTimeout, "the agent did not answer in time; the budget was given back")
}

func errNoResult() *models.Error {
	return models.Errorf(models.ExecutionFailed, "the agent gave no result; the budget was given back")
}

// finalError is what a hire that has ended is answered with; nil when it has a result.
func finalError(task *models.Task) error {
	switch {
	case task.Status == models.Completed:
		return nil
	case task.Status == models.Cancelled:
		return models.Errorf(models.Conflict, "task %s is cancelled; the budget was given back", task.ID)
	case task.ClosedAt != nil && *task.ClosedAt < *task.LeaseUntil:
		return errNoResult()
	default:
		return errDeadlineExceeded()
	}
}

// withPosterWallet is a hire as it is, with its poster's wallet.
func (m *Market) withPosterWallet(tx *database.Tx, task *models.Task) (TaskResult, error) {
	wallet, err := readWallet(tx, task.PosterID)
	return TaskResult{Task: *task, Wallet: wallet}, err
}

func checkResult(result string) error {
	if err := checkText("result", result, 1, maxResult); err != nil {
		return models.Errorf(models.ExecutionFailed, "the agent's answer cannot be used: %s", err)
	}
	return nil
}

// recordPromise leaves the task to the agent until the deadline. No process runs it any
// more, so that none can take it down with it.
func (m *Market) recordPromise(tx *database.Tx, task *models.Task, deadline models.Time) (TaskResult, error) {
	before := *task
	task.Replica, task.LeaseUntil, task.OpenUntil = nil, &deadline, deadline
	err := transition(tx, &before, models.Assigned, map[string]any{"replica": nil, "lease_until": deadline, "open_until": deadline})
	if err != nil {
		return TaskResult{}, err
	}
	if err := m.appendEvent(tx, models.TaskPromised, task); err != nil {
		return TaskResult{}, err
	}
	return m.withPosterWallet(tx, task)
}

// settleHire pays the worker of a direct task, or refunds its poster when there
// is a failure, and keeps the answer under the claim. Both are locked.
func (m *Market) settleHire(tx *database.Tx, c *idempotency.Claim, task *models.Task, result string, failure error) (TaskResult, error) {
	if failure != nil {
		wallet, err := m.settleRefunded(tx, task, models.Failed, models.TaskFailed)
		if err != nil {
			return TaskResult{}, err
		}
		return TaskResult{Task: *task, Wallet: wallet}, idempotency.Save(tx, c, idempotency.Response[TaskResult]{Error: models.AsError(failure)})
	}
	if _, err := m.settlePaid(tx, task, result); err != nil {
		return TaskResult{}, err
	}
	out, err := m.withPosterWallet(tx, task)
	if err != nil {
		return TaskResult{}, err
	}
	return out, idempotency.Save(tx, c, idempotency.Response[TaskResult]{Value: out})
}

// awaitResult waits for the end of a hire whose agent promised a result, and returns
// the hire as it stands then, or once ctx ends or [Market.Hurry] is called.
func (m *Market) awaitResult(ctx context.Context, actor auth.Actor, out TaskResult) (TaskResult, error) {
	id := out.Task.ID
	woken := make(chan struct{}, 1)
	feed := m.deps.Events.OpenFeed(events.Interest{
		Topics: []events.Topic{events.AgentTopic(actor.AgentID)},
		Filter: func(e *models.Event) bool { return e.TaskID != nil && *e.TaskID == id },
	}, nil, func(*models.Event) {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	defer feed.Close()
	for {
		now, err := m.readHire(ctx, actor, id)
		if err == nil {
			out = now
		}
		if ctx.Err() != nil {
			return out, nil // the end of waiting is no failure
		}
		if err != nil {
			return TaskResult{}, err
		}
		if out.Task.Status != models.Assigned {
			return out, finalError(&out.Task)
		}
		event, err := feed.Next(ctx)
		if err != nil {
			return out, nil // who can no longer be told waits no longer
		}
		if event != nil {
			continue // what happened is read anew
		}
		select {
		case <-woken:
		case <-ctx.Done():
		case <-m.stopping:
			return out, nil
		}
	}
}

// readHire reads a hire as its poster sees it.
func (m *Market) readHire(ctx context.Context, poster auth.Actor, taskID string) (TaskResult, error) {
	task, err := m.Task(ctx, poster.AgentID, taskID)
	if err != nil {
		return TaskResult{}, err
	}
	wallet, err := m.Wallet(ctx, poster.AgentID)
	if err != nil {
		return TaskResult{}, err
	}
	return TaskResult{Task: *task, Wallet: *wallet}, nil
}
