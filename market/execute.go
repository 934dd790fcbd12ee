package market

import (
	"context"
	"time"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/database"
	"agentmarket.space/server/database/failpoint"
	"agentmarket.space/server/ledger"
	"agentmarket.space/server/models"
)

// settleGrace is how long after its time-out a direct hire is refunded by the
// sweep, when the process that ran it has not settled it.
const settleGrace = 30 * time.Second

// ExecuteInput is whom to hire and for what. Budget is what is paid, in
// credits, at least the agent's price.
type ExecuteInput struct {
	AgentID         string
	TaskDescription string
	Budget          models.Credits
}

// Execute hires an agent and waits for its result: the budget goes into escrow,
// the agent runs with no transaction open, then it is paid, or the budget is
// given back. A caller that hangs up changes nothing of that.
//
// INVALID_INPUT for a budget below the agent's price, FORBIDDEN for hiring
// oneself, CONFLICT or UNAVAILABLE for an agent that cannot run: then nobody is
// called. EXECUTION_FAILED and EXECUTION_TIMEOUT when it ran in vain.
func (m *Market) Execute(ctx context.Context, actor auth.Actor, in ExecuteInput) (TaskResult, error) {
	if err := m.checkHire(actor, in); err != nil {
		return TaskResult{}, err
	}
	c, err := m.claim(ctx, actor.AgentID, "execute", in)
	if err != nil {
		return TaskResult{}, err
	}
	var out TaskResult
	var agent *models.Agent
	var replayed bool
	err = m.DB.Write(ctx, func(tx *database.Tx) error {
		kept, err := replay[TaskResult](ctx, tx, c)
		if replayed = kept != nil; replayed || err != nil {
			return keep(&out, kept, err)
		}
		if agent, err = m.hirable(tx, in); err != nil {
			return err
		}
		if out, err = m.hire(tx, actor, agent, in); err != nil {
			return err
		}
		return c.bind(tx, out.Task.ID)
	})
	if err != nil || replayed {
		return out, err
	}
	return m.run(context.WithoutCancel(ctx), c, agent, out.Task)
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

// hirable loads the agent and refuses one that cannot be hired as it is now.
func (m *Market) hirable(tx *database.Tx, in ExecuteInput) (*models.Agent, error) {
	agent := &models.Agent{}
	if err := tx.Take(agent, "id = ?", in.AgentID).Error; err != nil {
		return nil, database.NotFound(err, "agent", in.AgentID)
	}
	if err := m.Runner.Ready(agent); err != nil {
		return nil, err
	}
	if in.Budget < agent.PricePerTask {
		return nil, models.Invalid("budget", "must be at least the agent's price of %d credits", agent.PricePerTask)
	}
	return agent, nil
}

// hire writes the direct task and pays its budget into escrow.
func (m *Market) hire(tx *database.Tx, actor auth.Actor, agent *models.Agent, in ExecuteInput) (TaskResult, error) {
	now := m.now()
	deadline := now.Add(m.Settings.ExecuteTimeout + settleGrace)
	task := models.Task{
		ID: newID(), PosterID: actor.AgentID, WorkerID: &agent.ID, Title: "Direct hire", Description: in.TaskDescription,
		Budget: in.Budget, Capabilities: []string{}, Origin: models.Direct, Status: models.Assigned, Attempt: 1,
		OpenUntil: deadline, LeaseUntil: &deadline, CreatedAt: now, AcceptedAt: &now, Replica: new(m.DB.Replica()),
	}
	if err := insert(tx, &task); err != nil {
		return TaskResult{}, err
	}
	if err := m.tell(tx, models.TaskAccepted, &task); err != nil {
		return TaskResult{}, err
	}
	wallet, err := ledger.Hire(tx, now, &task)
	if err != nil {
		return TaskResult{}, err
	}
	return TaskResult{Task: task, Wallet: wallet}, m.tellWallet(tx, actor.AgentID, ledger.HireID(task.ID))
}

// run runs the hired agent and settles the task by its outcome.
func (m *Market) run(ctx context.Context, c *claim, agent *models.Agent, task models.Task) (TaskResult, error) {
	m.running.Add(1)
	defer m.running.Done()
	failpoint.Hit("execute-hired")
	result, failure := m.Runner.Run(ctx, agent, &task)
	failpoint.Hit("execute-ran")
	if failure == nil {
		failure = checkResult(result)
	}
	var out TaskResult
	err := m.DB.Write(ctx, func(tx *database.Tx) (err error) {
		held, err := c.lock(tx)
		if err != nil {
			return err
		}
		now, err := lockTask(tx, task.ID)
		if err != nil {
			return err
		}
		if now.Status != models.Assigned { // the sweep was there first
			return models.Errorf(models.ExecutionTimeout, "the agent did not answer in time; the budget was given back")
		}
		out, err = m.settleHire(tx, held, now, result, failure)
		failpoint.Hit("execute-settled")
		return err
	})
	if err != nil {
		return TaskResult{}, err
	}
	return out, failure
}

func checkResult(result string) error {
	if err := checkText("result", result, 1, maxResult); err != nil {
		return models.Errorf(models.ExecutionFailed, "the agent's answer cannot be used: %s", err)
	}
	return nil
}

// settleHire pays the worker of a direct task, or refunds its poster when there
// is a failure, and keeps the answer under the claim. Both are locked.
func (m *Market) settleHire(tx *database.Tx, c *claim, task *models.Task, result string, failure error) (TaskResult, error) {
	if failure != nil {
		wallet, err := m.settleUnpaid(tx, task, models.Failed, models.TaskFailed)
		if err != nil {
			return TaskResult{}, err
		}
		return TaskResult{Task: *task, Wallet: wallet}, store(tx, c, answer[TaskResult]{Refusal: models.AsError(failure)})
	}
	if _, err := m.settlePaid(tx, task, result); err != nil {
		return TaskResult{}, err
	}
	wallet, err := ledgerWallet(tx, task.PosterID)
	if err != nil {
		return TaskResult{}, err
	}
	out := TaskResult{Task: *task, Wallet: wallet}
	return out, store(tx, c, answer[TaskResult]{Value: out})
}
