package market

import (
	"context"
	"log/slog"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// settleGrace is the time after the timeout of a synchronous hire at which the sweep
// refunds it, if the process that ran it has not settled it.
const settleGrace = 30 * time.Second

// maxDeadline bounds the deadline of a hire. It equals [idempotency.KeyTTL], so that the
// key of a hire does not expire before the hire ends.
const maxDeadline = 24 * time.Hour

// ExecuteInput describes a direct hire. Budget is the payment, at least the agent's
// price.
type ExecuteInput struct {
	AgentID         string
	TaskDescription string
	Budget          models.Credits
}

// StartExecutionInput describes a direct hire in the background.
type StartExecutionInput struct {
	AgentID         string
	TaskDescription string
	Budget          models.Credits
	DeadlineMinutes *int // 1 to 1440; nil for the server's default
}

// Execute hires an agent and waits for its result. The budget moves to escrow, the agent
// runs outside of any transaction, and then the agent is paid or the budget refunded. The
// hire goes on if the caller disconnects. If the agent promises its result and the wait
// times out, Execute returns the task, which is still assigned, and no error.
//
// These errors are returned before the agent is called: INVALID_INPUT for a budget below
// the agent's price, FORBIDDEN for hiring oneself, CONFLICT or UNAVAILABLE for an agent
// that cannot run, INSUFFICIENT_CREDITS, and RATE_LIMITED or UNAVAILABLE if
// [SpendingLimits] are used up. EXECUTION_FAILED and EXECUTION_TIMEOUT if the run failed,
// CONFLICT if the hire was cancelled during it.
func (m *Market) Execute(ctx context.Context, actor auth.Actor, in ExecuteInput) (TaskResult, error) {
	waitCtx, cancel := context.WithTimeout(ctx, m.Settings.ExecuteTimeout)
	defer cancel()
	claim, err := m.idempotency.NewClaim(ctx, actor.AgentID, "execute", in)
	if err != nil {
		return TaskResult{}, err
	}
	h := hire{deadline: m.timestamp().Add(m.Settings.ExecutionDeadline), lease: m.Settings.ExecuteTimeout + settleGrace}
	if err = m.createHire(ctx, claim, actor, in, &h); err != nil {
		return h.result, err
	}
	out, promised := h.result, h.promised
	if !h.replayed {
		out, promised, err = m.runHire(context.WithoutCancel(ctx), claim, &h)
	}
	if !promised || err != nil {
		return out, err
	}
	return m.awaitResult(waitCtx, actor, out)
}

// StartExecution hires an agent and returns the task at once. The agent runs in the
// background and is settled as by [Market.Execute]. An agent whose endpoint call times
// out can complete the task until the deadline; after that the budget is refunded. Errors
// are those of Execute before the agent is called.
func (m *Market) StartExecution(ctx context.Context, actor auth.Actor, in StartExecutionInput) (TaskResult, error) {
	timeout, err := minutesOrDefault("deadlineMinutes", in.DeadlineMinutes, maxDeadline, m.Settings.ExecutionDeadline)
	if err != nil {
		return TaskResult{}, err
	}
	claim, err := m.idempotency.NewClaim(ctx, actor.AgentID, "startExecution", in)
	if err != nil {
		return TaskResult{}, err
	}
	h := hire{background: true, deadline: m.timestamp().Add(timeout), lease: timeout}
	err = m.createHire(ctx, claim, actor, ExecuteInput{AgentID: in.AgentID, TaskDescription: in.TaskDescription, Budget: in.Budget}, &h)
	if err != nil || h.replayed {
		return h.result, err
	}
	m.executions.group.Go(func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		if _, _, err := m.runHire(limited, nil, &h); err != nil && models.CodeOf(err) == models.Internal {
			m.deps.Logger.ErrorContext(ctx, "hire ended with an error", slog.Any("error", err), slog.String("task_id", h.result.Task.ID))
		}
	})
	return h.result, nil
}

// hire is a direct hire from its creation to its settlement.
type hire struct {
	background bool
	deadline   models.Time   // of a promised result
	lease      time.Duration // until the sweep refunds it
	taskID     string

	// Set by createHire:
	agent    *models.Agent
	result   TaskResult
	replayed bool // the key was used before; there is nothing to run
	promised bool // the replayed hire is running, and its agent has promised a result
}

// createHire creates a hire, for which the caller calls runHire, or replays the response
// of the same key. A background hire's response is stored at once, that of a synchronous
// hire when it is settled.
func (m *Market) createHire(ctx context.Context, claim *idempotency.Claim, actor auth.Actor, in ExecuteInput, h *hire) error {
	if err := m.checkHire(actor, in); err != nil {
		return err
	}
	h.taskID = newID()
	m.executions.register(h.taskID)
	created := false
	defer func() {
		if !created {
			m.executions.finish(h.taskID)
		}
	}()
	err := m.deps.DB.Write(ctx, func(tx *database.Tx) error {
		h.promised = false
		stored, err := idempotency.Acquire[TaskResult](ctx, tx, claim)
		if h.replayed = stored != nil; h.replayed {
			h.result, err = stored.Unpack()
			return err
		}
		if err != nil {
			return m.replayPromised(ctx, tx, claim, h, err)
		}
		if h.agent, err = m.loadHirable(tx, in); err != nil {
			return err
		}
		if h.result, err = m.insertHire(tx, actor, in, h); err != nil {
			return err
		}
		if h.background {
			return idempotency.Save(tx, claim, idempotency.Response[TaskResult]{Value: h.result})
		}
		return claim.BindTask(tx, h.result.Task.ID)
	})
	created = err == nil && !h.replayed
	return err
}

// replayPromised replaces the CONFLICT of a key whose hire is running with the hire, if its
// agent has promised a result: the result can take hours, and the caller needs the
// task's id.
func (m *Market) replayPromised(ctx context.Context, tx *database.Tx, claim *idempotency.Claim, h *hire, err error) error {
	taskID, ok := claim.RunningTask()
	if !ok {
		return err
	}
	var task models.Task
	if readErr := tx.Take(&task, "id = ?", taskID).Error; readErr != nil {
		return readErr
	}
	if task.Replica != nil || task.StatusAt(m.timestamp()) != models.Assigned {
		return err
	}
	h.result, err = m.withPosterWallet(tx, &task)
	h.replayed, h.promised = true, true
	auth.RequestFrom(ctx).Replayed.Store(true)
	return err
}

// checkHire validates a hire without the database.
func (m *Market) checkHire(actor auth.Actor, in ExecuteInput) error {
	if err := checkText("taskDescription", in.TaskDescription, 1, maxDescription); err != nil {
		return err
	}
	if in.AgentID == actor.AgentID {
		return models.Errorf(models.Forbidden, "an agent cannot hire itself")
	}
	return m.checkBudget("budget", in.Budget)
}

// loadHirable loads the agent and checks that it can be hired for the budget.
func (m *Market) loadHirable(tx *database.Tx, in ExecuteInput) (*models.Agent, error) {
	agent := &models.Agent{}
	if err := tx.Take(agent, "id = ?", in.AgentID).Error; err != nil {
		return nil, database.TranslateNotFound(err, "agent", in.AgentID)
	}
	if err := m.deps.Runner.CheckRunnable(agent); err != nil {
		return nil, err
	}
	if in.Budget < agent.PricePerTask {
		return nil, models.FieldErrorf("budget", "must be at least the agent's price of %d credits", agent.PricePerTask)
	}
	return agent, nil
}

// insertHire inserts the task of a hire and moves its budget to escrow.
func (m *Market) insertHire(tx *database.Tx, actor auth.Actor, in ExecuteInput, h *hire) (TaskResult, error) {
	tokens, err := m.reserveTokens(tx, actor.AgentID, h.agent, in)
	if err != nil {
		return TaskResult{}, err
	}
	now := m.timestamp()
	lease := now.Add(h.lease)
	task := models.Task{
		ID: h.taskID, PosterID: actor.AgentID, WorkerID: &h.agent.ID, Title: "Direct hire", Description: in.TaskDescription,
		Budget: in.Budget, Capabilities: []string{}, Origin: models.OriginDirect, Status: models.Assigned, Attempt: 1,
		OpenUntil: lease, LeaseUntil: &lease, CreatedAt: now, AcceptedAt: &now, Replica: new(m.deps.DB.ReplicaID()), Tokens: tokens,
	}
	if err := insertTask(tx, &task); err != nil {
		return TaskResult{}, err
	}
	if err := m.appendEvent(tx, models.TaskAccepted, &task); err != nil {
		return TaskResult{}, err
	}
	wallet, err := ledger.Hire(tx, now, &task)
	if err != nil {
		return TaskResult{}, err
	}
	return TaskResult{Task: task, Wallet: wallet}, m.appendWalletEvent(tx, actor.AgentID, ledger.HireID(task.ID))
}
