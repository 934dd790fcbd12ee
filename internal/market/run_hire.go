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

// runHire runs the hired agent and settles the task. If the agent promises a result, the
// task stays assigned until its deadline, even if this process stops. If the task was
// ended by another request during the run, runHire returns that outcome.
func (m *Market) runHire(ctx context.Context, claim *idempotency.Claim, h *hire) (out TaskResult, promised bool, err error) {
	task := h.result.Task
	runCtx := m.executions.start(ctx, task.ID)
	defer m.executions.finish(task.ID)
	opts := RunOptions{Background: h.background, Deadline: h.deadline}
	if h.background {
		opts.OnText = func(piece string) { m.executions.publishText(task.ID, piece) }
	}
	failpoint.Hit("execute-hired")
	result, failure := m.callAgent(runCtx, h, &task, opts)
	failpoint.Hit("execute-ran")
	if failure == nil && !result.Promised {
		failure = checkResult(result.Result)
	}
	var returnErr error
	settle := func() error {
		return m.deps.DB.Write(context.WithoutCancel(ctx), func(tx *database.Tx) error {
			out, promised, returnErr = TaskResult{}, false, failure
			lockedClaim, err := claim.Lock(tx)
			if err != nil {
				return err
			}
			current, err := lockTask(tx, task.ID)
			if err != nil {
				return err
			}
			if err := recordTokens(tx, task.ID, result.Tokens); err != nil {
				return err
			}
			switch status := current.StatusAt(m.timestamp()); {
			case current.Status != models.Assigned: // ended by another request
				returnErr = finalError(current)
				out, err = m.withPosterWallet(tx, current)
			case status != models.Assigned:
				returnErr = deadlineExceededError()
				out, err = m.settleHire(tx, lockedClaim, current, "", returnErr)
			case result.Promised && failure == nil:
				promised = true
				out, err = m.recordPromise(tx, current, h.deadline)
			default:
				out, err = m.settleHire(tx, lockedClaim, current, result.Result, failure)
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
		return TaskResult{}, false, unknownOutcomeError(task.ID, err)
	}
	return out, promised, returnErr
}

// unknownOutcomeError replaces an error of the database after a hire was created. The error
// may say that nothing was changed, which is true only of the last transaction.
func unknownOutcomeError(taskID string, err error) error {
	if models.CodeOf(err) != models.Unavailable {
		return err
	}
	return models.Errorf(models.Unavailable, "task %s was created, but its outcome is unknown; retry with the same Idempotency-Key, or read the task", taskID)
}

// callAgent runs the agent. A panic fails only this hire.
func (m *Market) callAgent(ctx context.Context, h *hire, task *models.Task, opts RunOptions) (result RunResult, failure error) {
	defer func() {
		if r := recover(); r != nil {
			m.deps.Logger.ErrorContext(ctx, "hire panicked", slog.Any("panic", r), slog.String("task_id", task.ID), slog.String("stack", string(debug.Stack())))
			result, failure = RunResult{}, noResultError()
		}
	}()
	return m.deps.Runner.Run(ctx, h.agent, task, opts)
}

// Backoff of retrySettle; it doubles with each attempt.
const (
	minSettleBackoff = time.Second
	maxSettleBackoff = 30 * time.Second
)

// retrySettle retries settle while the database is unavailable, until ctx is done or the
// server stops, so that an agent's result is not lost.
func (m *Market) retrySettle(ctx context.Context, taskID string, settle func() error) error {
	for backoff := minSettleBackoff; ; backoff = min(2*backoff, maxSettleBackoff) {
		err := settle()
		if err == nil || models.CodeOf(err) != models.Unavailable && models.CodeOf(err) != models.Internal {
			return err
		}
		m.deps.Logger.ErrorContext(ctx, "could not settle a hire; retrying", slog.Any("error", err), slog.String("task_id", taskID))
		timer := time.NewTimer(backoff)
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

func deadlineExceededError() *models.Error {
	return models.Errorf(models.ExecutionTimeout, "the agent did not answer in time; the budget was refunded")
}

func noResultError() *models.Error {
	return models.Errorf(models.ExecutionFailed, "the agent returned no result; the budget was refunded")
}

// finalError returns the error of an ended hire, nil if it was completed.
func finalError(task *models.Task) error {
	switch {
	case task.Status == models.Completed:
		return nil
	case task.Status == models.Cancelled:
		return models.Errorf(models.Conflict, "task %s is cancelled; the budget was refunded", task.ID)
	case task.ClosedAt != nil && *task.ClosedAt < *task.LeaseUntil:
		return noResultError()
	default:
		return deadlineExceededError()
	}
}

// withPosterWallet returns a hire with its poster's wallet.
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

// recordPromise keeps the task assigned until the deadline. It clears the task's process,
// so that the task does not fail when this process stops.
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

// settleHire pays the worker of a hire, or refunds its poster if failure is not nil, and
// stores the response. The caller holds the locks of the claim and the task.
func (m *Market) settleHire(tx *database.Tx, claim *idempotency.Claim, task *models.Task, result string, failure error) (TaskResult, error) {
	if failure != nil {
		wallet, err := m.settleRefunded(tx, task, models.Failed, models.TaskFailed)
		if err != nil {
			return TaskResult{}, err
		}
		return TaskResult{Task: *task, Wallet: wallet}, idempotency.Save(tx, claim, idempotency.Response[TaskResult]{Error: models.AsError(failure)})
	}
	if _, err := m.settlePaid(tx, task, result); err != nil {
		return TaskResult{}, err
	}
	out, err := m.withPosterWallet(tx, task)
	if err != nil {
		return TaskResult{}, err
	}
	return out, idempotency.Save(tx, claim, idempotency.Response[TaskResult]{Value: out})
}

// awaitResult waits until a hire with a promised result has ended, ctx is done or
// [Market.StopWaiting] is called, and returns the hire's current state.
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
		current, err := m.readHire(ctx, actor, id)
		if err == nil {
			out = current
		}
		if ctx.Err() != nil {
			return out, nil // the hire goes on after the timeout
		}
		if err != nil {
			return TaskResult{}, unknownOutcomeError(id, err)
		}
		if out.Task.Status != models.Assigned {
			return out, finalError(&out.Task)
		}
		event, err := feed.Next(ctx)
		if err != nil {
			return out, nil // the feed is closed; the hire goes on
		}
		if event != nil {
			continue
		}
		select {
		case <-woken:
		case <-ctx.Done():
		case <-m.stopping:
			return out, nil
		}
	}
}

// readHire reads a hire and the wallet of its poster.
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
