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

// settleGrace is how long after its time-out a direct hire is refunded by the
// sweep, when the process that ran it has not settled it.
const settleGrace = 30 * time.Second

// maxDeadline is the most that a hired agent can be given: a day, for as long as
// the answer to an Idempotency-Key is kept.
const maxDeadline = 24 * time.Hour

// ExecuteInput is whom to hire and for what. Budget is what is paid, in
// credits, at least the agent's price.
type ExecuteInput struct {
	AgentID         string
	TaskDescription string
	Budget          models.Credits
}

// StartExecutionInput is whom to hire, for what, and how long the agent has.
type StartExecutionInput struct {
	AgentID         string
	TaskDescription string
	Budget          models.Credits
	DeadlineMinutes *int // 1 to 1440; the server's own when nil
}

// Execute hires an agent and waits for its result: the budget goes into escrow,
// the agent runs with no transaction open, then it is paid, or the budget is
// given back. A caller that hangs up changes nothing of that. An agent that
// promises its result is waited for as long as any other; the task that is
// returned is still assigned when that was not enough, and nothing has failed.
//
// INVALID_INPUT for a budget below the agent's price, FORBIDDEN for hiring
// oneself, CONFLICT or UNAVAILABLE for an agent that cannot run: then nobody is
// called. RATE_LIMITED and UNAVAILABLE when [Spending] is used up. EXECUTION_FAILED
// and EXECUTION_TIMEOUT when it ran in vain, CONFLICT when the hire was cancelled
// meanwhile.
func (m *Market) Execute(ctx context.Context, actor auth.Actor, in ExecuteInput) (TaskResult, error) {
	waiting, cancel := context.WithTimeout(ctx, m.Settings.ExecuteTimeout)
	defer cancel()
	c, err := m.idempotency.NewClaim(ctx, actor.AgentID, "execute", in)
	if err != nil {
		return TaskResult{}, err
	}
	h := hire{deadline: m.now().Add(m.Settings.ExecuteDeadline), lease: m.Settings.ExecuteTimeout + settleGrace}
	if err = m.createHire(ctx, c, actor, in, &h); err != nil {
		return h.result, err
	}
	out, promised := h.result, h.promised
	if !h.replayed {
		out, promised, err = m.runHire(context.WithoutCancel(ctx), c, &h)
	}
	if !promised || err != nil {
		return out, err
	}
	return m.awaitResult(waiting, actor, out)
}

// StartExecution hires an agent and returns the task at once: the agent runs in
// the background, and is paid or not as by [Market.Execute]. An endpoint that
// gives no answer while it is called may complete the task itself until its
// deadline; then the budget is given back. It is refused as Execute is, before
// anybody is called.
func (m *Market) StartExecution(ctx context.Context, actor auth.Actor, in StartExecutionInput) (TaskResult, error) {
	within, err := minutesOrDefault("deadlineMinutes", in.DeadlineMinutes, maxDeadline, m.Settings.ExecuteDeadline)
	if err != nil {
		return TaskResult{}, err
	}
	c, err := m.idempotency.NewClaim(ctx, actor.AgentID, "startExecution", in)
	if err != nil {
		return TaskResult{}, err
	}
	h := hire{background: true, deadline: m.now().Add(within), lease: within}
	err = m.createHire(ctx, c, actor, ExecuteInput{AgentID: in.AgentID, TaskDescription: in.TaskDescription, Budget: in.Budget}, &h)
	if err != nil || h.replayed {
		return h.result, err
	}
	m.executions.group.Go(func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
		defer cancel()
		if _, _, err := m.runHire(limited, nil, &h); err != nil && models.CodeOf(err) == models.Internal {
			m.deps.Logger.ErrorContext(ctx, "a hire ended with an error", slog.Any("error", err), slog.String("task_id", h.result.Task.ID))
		}
	})
	return h.result, nil
}

// hire is a hire on its way.
type hire struct {
	background bool
	deadline   models.Time   // of a promised result
	lease      time.Duration // until the sweep refunds it
	taskID     string        // of its task

	// As it was written:
	agent    *models.Agent
	result   TaskResult
	replayed bool // it was written for the same key before, and nothing is to be run
	promised bool // and its agent has promised a result
}

// createHire writes a hire, which run is to be called for, or finds what was answered to the
// same key before. The claim of a patient one is answered with it, any other when it is
// settled.
func (m *Market) createHire(ctx context.Context, c *idempotency.Claim, actor auth.Actor, in ExecuteInput, h *hire) error {
	if err := m.checkHire(actor, in); err != nil {
		return err
	}
	h.taskID = newID()
	m.executions.register(h.taskID)
	written := false
	defer func() {
		if !written {
			m.executions.finish(h.taskID)
		}
	}()
	err := m.deps.DB.Write(ctx, func(tx *database.Tx) error {
		h.promised = false
		stored, err := idempotency.Acquire[TaskResult](ctx, tx, c)
		if h.replayed = stored != nil; h.replayed {
			h.result, err = stored.Unpack()
			return err
		}
		if err != nil {
			return m.replayPromised(ctx, tx, c, h, err)
		}
		if h.agent, err = m.loadHirable(tx, in); err != nil {
			return err
		}
		if h.result, err = m.insertHire(tx, actor, in, h); err != nil {
			return err
		}
		if h.background {
			return idempotency.Save(tx, c, idempotency.Response[TaskResult]{Value: h.result})
		}
		return c.BindTask(tx, h.result.Task.ID)
	})
	written = err == nil && !h.replayed
	return err
}

// replayPromised makes the refusal of a key whose hire is under way the hire as it is, if
// its agent promised a result: that can take long, and the caller has to learn
// the task's id.
func (m *Market) replayPromised(ctx context.Context, tx *database.Tx, c *idempotency.Claim, h *hire, err error) error {
	taskID, ok := c.RunningTask()
	if !ok {
		return err
	}
	var task models.Task
	if failed := tx.Take(&task, "id = ?", taskID).Error; failed != nil {
		return failed
	}
	if task.Replica != nil || task.StatusAt(m.now()) != models.Assigned {
		return err
	}
	var failed error
	h.result, failed = m.withPosterWallet(tx, &task)
	h.replayed, h.promised = true, true
	auth.RequestFrom(ctx).Replayed.Store(true)
	return failed
}

// checkHire refuses a hire that can never be.
func (m *Market) checkHire(actor auth.Actor, in ExecuteInput) error {
	if err := checkText("taskDescription", in.TaskDescription, 1, maxDescription); err != nil {
		return err
	}
	if in.AgentID == actor.AgentID {
		return models.Errorf(models.Forbidden, "an agent cannot hire itself")
	}
	return m.checkBudget("budget", in.Budget)
}

// loadHirable loads the agent and refuses one that cannot be hired as it is now.
func (m *Market) loadHirable(tx *database.Tx, in ExecuteInput) (*models.Agent, error) {
	agent := &models.Agent{}
	if err := tx.Take(agent, "id = ?", in.AgentID).Error; err != nil {
		return nil, database.NotFound(err, "agent", in.AgentID)
	}
	if err := m.deps.Runner.CheckRunnable(agent); err != nil {
		return nil, err
	}
	if in.Budget < agent.PricePerTask {
		return nil, models.Invalid("budget", "must be at least the agent's price of %d credits", agent.PricePerTask)
	}
	return agent, nil
}

// insertHire writes the direct task and pays its budget into escrow.
func (m *Market) insertHire(tx *database.Tx, actor auth.Actor, in ExecuteInput, h *hire) (TaskResult, error) {
	tokens, err := m.reserveTokens(tx, actor.AgentID, h.agent, in)
	if err != nil {
		return TaskResult{}, err
	}
	now := m.now()
	lease := now.Add(h.lease)
	task := models.Task{
		ID: h.taskID, PosterID: actor.AgentID, WorkerID: &h.agent.ID, Title: "Direct hire", Description: in.TaskDescription,
		Budget: in.Budget, Capabilities: []string{}, Origin: models.Direct, Status: models.Assigned, Attempt: 1,
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
