package ledger_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// sampleMarket is a market in which one task is open, one assigned and one completed.
type sampleMarket struct {
	*markettest.Bundle
	poster, worker            auth.Actor
	open, assigned, completed models.Task
}

func newSampleMarket(t *testing.T) *sampleMarket {
	t.Helper()
	return newSampleMarketAt(t, services.NewDatabase(t))
}

func newSampleMarketAt(t *testing.T, address string) *sampleMarket {
	t.Helper()
	b := markettest.NewWithDatabase(t, address)
	s := &sampleMarket{Bundle: b, poster: b.NewAgent(), worker: b.NewAgent()}
	s.open, s.assigned, s.completed = b.NewTask(s.poster, 10), b.NewTask(s.poster, 20), b.NewTask(s.poster, 25)
	for _, task := range []models.Task{s.assigned, s.completed} {
		_, err := b.Accept(t.Context(), s.worker, task.ID)
		testutil.Must(t, err)
	}
	_, err := b.Complete(t.Context(), s.worker, s.completed.ID, "done")
	testutil.Must(t, err)
	return s
}

// replaceIDs puts the story's ids into a statement.
func (s *sampleMarket) replaceIDs(statement string) string {
	return strings.NewReplacer("POSTER", s.poster.AgentID, "WORKER", s.worker.AgentID,
		"OPEN", s.open.ID, "ASSIGNED", s.assigned.ID, "COMPLETED", s.completed.ID).Replace(statement)
}

func (s *sampleMarket) exec(t *testing.T, statements ...string) error {
	t.Helper()
	return s.DB.Write(t.Context(), func(tx *database.Tx) error {
		for _, statement := range statements {
			if err := tx.Exec(s.replaceIDs(statement)).Error; err != nil {
				return err
			}
		}
		return nil
	})
}

// TestTransfers_taskLifecycle follows the credits of a task through every account.
func TestTransfers_taskLifecycle(t *testing.T) {
	t.Parallel()
	s := newSampleMarket(t)
	report := s.VerifyLedger()
	if report.Issued != 200 || report.InWallets != 45+10+122 || report.InEscrow != 20 || report.InFees != 3 {
		t.Errorf("the ledger holds %+v", report)
	}
	var kinds []string
	testutil.Must(t, s.DB.Read(t.Context()).Raw(s.replaceIDs("SELECT kind || ' ' || amount FROM transfers WHERE task_id = 'COMPLETED' ORDER BY seq")).Scan(&kinds).Error)
	if got := strings.Join(kinds, ", "); got != "hold 25, escrow 25, payout 22, fee 3" {
		t.Errorf("the completed task moved %s", got)
	}
}

// TestDatabase_rejectsInvalidChanges: whatever a program does, the database keeps the books.
func TestDatabase_rejectsInvalidChanges(t *testing.T) {
	t.Parallel()
	s := newSampleMarket(t)
	transfer := func(id, kind, debit, credit string, amount int, task string) string {
		balance := "NULL"
		if strings.HasPrefix(debit, "available") || strings.HasPrefix(credit, "available") {
			balance = "1"
		}
		return fmt.Sprintf("INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, balance_after, created_at) VALUES ('%s', '%s', '%s', '%s', %d, %s, %s, 0)",
			id, kind, debit, credit, amount, task, balance)
	}
	const (
		follow    = "a transfer must match the state of its task"
		overdraft = "an escrow cannot pay more than it holds"
	)
	for _, row := range []struct{ name, statement, says string }{
		{"credits from nowhere", "UPDATE wallets SET available = available + 1, last_seq = last_seq + 1 WHERE agent_id = 'POSTER'", "a wallet must match its transfers"},
		{"an overdraft", "UPDATE wallets SET available = -1 WHERE agent_id = 'POSTER'", "a wallet must match its transfers"},
		{"a new wallet with credits", "INSERT INTO wallets (agent_id, available) VALUES ('stranger', 5)", "a new wallet must be empty"},
		{"a wallet without an agent", "INSERT INTO wallets (agent_id) VALUES ('stranger')", "violates foreign key constraint"},
		{"a wallet removed", "DELETE FROM wallets WHERE agent_id = 'POSTER'", "wallets cannot be deleted"},
		{"a transfer altered", "UPDATE transfers SET amount = 1", "transfers are immutable"},
		{"a transfer removed", "DELETE FROM transfers", "transfers are immutable"},
		{"transfers replaced", services.ForEngine("INSERT OR REPLACE INTO transfers SELECT * FROM transfers", "TRUNCATE transfers CASCADE"), "transfers are immutable"},
		{"a second grant", transfer("grant:POSTER", "grant", "issuance", "available:POSTER", 100, "NULL"), "duplicated key not allowed"},
		{"a grant under another name", transfer("grant:again", "grant", "issuance", "available:POSTER", 100, "NULL"), "a grant must go from issuance to an agent, once per agent"},
		{"a grant from another's wallet", transfer("grant:POSTER", "grant", "available:WORKER", "available:POSTER", 100, "NULL"), "a grant must go from issuance to an agent, once per agent"},
		{"a second payout", transfer("payout:COMPLETED", "payout", "escrow:COMPLETED", "available:WORKER", 22, "'COMPLETED'"), overdraft},
		{"a payout before completion", transfer("payout:ASSIGNED", "payout", "escrow:ASSIGNED", "available:WORKER", 18, "'ASSIGNED'"), follow},
		{"a payout to another", transfer("payout:COMPLETED", "payout", "escrow:COMPLETED", "available:POSTER", 22, "'COMPLETED'"), overdraft},
		{"a payout of all", transfer("payout:COMPLETED", "payout", "escrow:COMPLETED", "available:WORKER", 25, "'COMPLETED'"), overdraft},
		{"a payout from another escrow", transfer("payout:COMPLETED", "payout", "escrow:ASSIGNED", "available:WORKER", 22, "'COMPLETED'"), overdraft},
		{"a refund of a completed task", transfer("refund:COMPLETED", "refund", "escrow:COMPLETED", "available:POSTER", 25, "'COMPLETED'"), overdraft},
		{"a refund of an open task", transfer("refund:OPEN", "refund", "held:POSTER", "available:POSTER", 10, "'OPEN'"), follow},
		{"a second hold", transfer("hold:OPEN:2", "hold", "available:POSTER", "held:POSTER", 10, "'OPEN'"), follow},
		{"a hold of more than the budget", transfer("hold:OPEN", "hold", "available:POSTER", "held:POSTER", 11, "'OPEN'"), follow},
		{"a hold of another's credits", transfer("hold:OPEN", "hold", "available:WORKER", "held:WORKER", 10, "'OPEN'"), follow},
		{"an escrow of less than the budget", transfer("escrow:ASSIGNED:1", "escrow", "held:POSTER", "escrow:ASSIGNED", 19, "'ASSIGNED'"), follow},
		{"an escrow for an attempt that was not", transfer("escrow:ASSIGNED:2", "escrow", "held:POSTER", "escrow:ASSIGNED", 20, "'ASSIGNED'"), follow},
		{"a hire of a posted task", transfer("hire:ASSIGNED", "hire", "available:POSTER", "escrow:ASSIGNED", 20, "'ASSIGNED'"), follow},
		{"a task back to open without its credits", transfer("reopen:ASSIGNED:1", "reopen", "escrow:ASSIGNED", "held:POSTER", 20, "'ASSIGNED'"), follow},
		{"a fee before completion", transfer("fee:ASSIGNED", "fee", "escrow:ASSIGNED", "fees", 2, "'ASSIGNED'"), follow},
		{"an escrow of an open task", transfer("escrow:OPEN:1", "escrow", "held:POSTER", "escrow:OPEN", 10, "'OPEN'"), follow},
		{"a transfer of nothing", transfer("hold:OPEN", "hold", "available:POSTER", "held:POSTER", 0, "'OPEN'"), follow},
		{"a transfer without a task", transfer("fee:none", "fee", "escrow:none", "fees", 1, "NULL"), overdraft},
		{"a kind that is unknown", transfer("gift:1", "gift", "available:POSTER", "available:WORKER", 1, "'OPEN'"), follow},
		{"a task with another budget", "UPDATE tasks SET budget = 11 WHERE id = 'OPEN'", "the terms of a task cannot change"},
		{"an ended task opened again", "UPDATE tasks SET status = 'assigned' WHERE id = 'COMPLETED'", "invalid change of task status"},
		{"another worker after the end", "UPDATE tasks SET worker_id = NULL WHERE id = 'COMPLETED'", "a task that has ended cannot change"},
		{"a task removed", "DELETE FROM tasks WHERE id = 'OPEN'", "tasks cannot be deleted"},
		{"a task for its own poster", "UPDATE tasks SET status = 'assigned', attempt = 1, worker_id = 'POSTER' WHERE id = 'OPEN'", services.ForEngine("CHECK", "check constraint")},
		{"an event altered", "UPDATE events SET kind = 'task.posted'", "events are immutable"},
		{"events replaced", services.ForEngine("INSERT OR REPLACE INTO events (seq, kind, created_at) SELECT seq, kind, created_at FROM events", "TRUNCATE events CASCADE"), "events after the horizon cannot be deleted"},
		{"the horizon removed", services.ForEngine("DELETE FROM event_horizon", "TRUNCATE event_horizon"), "event_horizon must have exactly one row"},
		{"the sums removed", services.ForEngine("DELETE FROM ledger_sums", "TRUNCATE ledger_sums"), "the ledger totals can only grow"},
		{"half a credit", "UPDATE agents SET price_per_task = '1.5'", services.ForEngine("cannot store REAL value in INTEGER column", "invalid input syntax for type bigint")},
	} {
		if err := s.exec(t, row.statement); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.says)
		}
	}
	s.VerifyLedger()
}

// TestVerify: books that were tampered with behind the database's back are found
// out, law by law.
func TestVerify(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, statement, says string }{
		{"a wallet raised", "UPDATE wallets SET available = available + 1 WHERE agent_id = 'WORKER'", "wallet of WORKER has 123 and 0 held, its transfers say 122 and 0"},
		{"credits moved between wallets", "UPDATE wallets SET available = available + CASE agent_id WHEN 'WORKER' THEN 5 ELSE -5 END", "wallet of POSTER has 40"},
		{"a transfer raised", "UPDATE transfers SET amount = 21 WHERE id = 'escrow:ASSIGNED:1'", "escrow of ASSIGNED (assigned) holds 21 of a budget of 20"},
		{"a payout removed", "DELETE FROM transfers WHERE id = 'payout:COMPLETED'", "task COMPLETED (completed) paid out 3 and gave back 0 of 25"},
		{"an account of nobody", "UPDATE transfers SET credit_account = 'available:nobody' WHERE id = 'grant:WORKER'", "transfer grant:WORKER names an unknown account"},
		{"a hold removed", "DELETE FROM transfers WHERE id = 'hold:OPEN'", "its transfers say 55 and 0"},
		{"a budget raised", "UPDATE tasks SET budget = 12 WHERE id = 'OPEN'", "wallet of POSTER holds 10, its open tasks ask for 12"},
		{"an escrow for another task", "UPDATE transfers SET credit_account = 'escrow:OPEN' WHERE id = 'escrow:ASSIGNED:1'", "transfer escrow:ASSIGNED:1 names an unknown account"},
		{"a task cancelled without a refund", "UPDATE tasks SET status = 'cancelled' WHERE id = 'OPEN'", "task OPEN (cancelled) paid out 0 and gave back 0 of 10"},
		{"a balance noted wrong", "UPDATE transfers SET balance_after = 7 WHERE id = 'payout:COMPLETED'", "transfer payout:COMPLETED notes a balance of 7, its history says 122"},
		{"a count raised", "UPDATE agents SET completed_count = 9 WHERE id = 'WORKER'", "agent WORKER counts 9 completed tasks, there are 1"},
		{"an event removed", "DELETE FROM events WHERE kind = 'task.completed'", "task COMPLETED is completed but no event says so"},
		{"a capability of another agent's standing", "INSERT INTO agent_capabilities (capability, agent_id, reputation, price_per_task) VALUES ('x', 'WORKER', 1, 10)", "capability x of agent WORKER says 1"},
		{"a capability of another price", "INSERT INTO agent_capabilities (capability, agent_id, price_per_task) VALUES ('x', 'WORKER', 9)", "capability x of agent WORKER says 0"},
		{"a capability with a webhook that is not", "INSERT INTO agent_capabilities (capability, agent_id, price_per_task, has_webhook) VALUES ('x', 'WORKER', 10, 1)", "capability x of agent WORKER says 0"},
		{"a capability of a task that has moved on", "INSERT INTO task_capabilities (capability, task_id) VALUES ('x', 'COMPLETED')", "capability x of task COMPLETED says open, it is completed"},
		{"credits issued to nobody", "UPDATE transfers SET amount = 150 WHERE id = 'grant:POSTER'", "250 credits were issued but wallets, escrow and fees hold 200"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSampleMarket(t)
			var triggers []string
			testutil.Must(t, s.DB.Read(t.Context()).Raw(services.DropTriggersQuery()).Scan(&triggers).Error)
			testutil.Must(t, s.exec(t, append(triggers, row.statement)...))
			report, err := ledger.Verify(s.DB.Read(t.Context()))
			testutil.Must(t, err)
			if all := strings.Join(report.Violations, "\n"); !strings.Contains(all, s.replaceIDs(row.says)) {
				t.Errorf("want %q among:\n%s", s.replaceIDs(row.says), all)
			}
		})
	}
}

// TestHold_concurrent: of fifty holds that together are too much, those that fit are made,
// and one that is made twice moves nothing.
func TestHold_concurrent(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster := b.NewAgent()
	var made atomic.Int32
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			_, err := b.Post(t.Context(), poster, market.PostTaskInput{Title: "T", Description: "D", Budget: 7})
			switch {
			case err == nil:
				made.Add(1)
			case models.CodeOf(err) != models.InsufficientFunds:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if available, held := b.Balances(poster); made.Load() != 14 || available != 2 || held != 98 {
		t.Errorf("%d holds, %d left and %d held", made.Load(), available, held)
	}
	var task models.Task
	testutil.Must(t, b.DB.Read(t.Context()).Take(&task).Error)
	err := b.DB.Write(t.Context(), func(tx *database.Tx) error {
		_, err := ledger.Hold(tx, models.NewTime(b.Clock.Now()), &task)
		return err
	})
	if err == nil {
		t.Error("a task was held for twice")
	}
	b.VerifyLedger()
}
