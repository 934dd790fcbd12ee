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

// sampleMarket is a market with an open, an assigned and a completed task.
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

// replaceIDs replaces the placeholders in a text with the IDs of the market.
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

// TestTransfers_taskLifecycle checks the transfers of a completed task.
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
		t.Errorf("the transfers of the completed task are %s", got)
	}
}

// TestDatabase_rejectsInvalidChanges checks that triggers reject invalid changes.
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
		mismatch  = "a transfer must match the state of its task"
		overdraft = "an escrow cannot pay more than it holds"
	)
	for _, row := range []struct{ name, statement, wantErr string }{
		{"credits from nowhere", "UPDATE wallets SET available = available + 1, last_seq = last_seq + 1 WHERE agent_id = 'POSTER'", "a wallet must match its transfers"},
		{"an overdraft", "UPDATE wallets SET available = -1 WHERE agent_id = 'POSTER'", "a wallet must match its transfers"},
		{"a new wallet with credits", "INSERT INTO wallets (agent_id, available) VALUES ('stranger', 5)", "a new wallet must be empty"},
		{"a wallet without an agent", "INSERT INTO wallets (agent_id) VALUES ('stranger')", "violates foreign key constraint"},
		{"a deleted wallet", "DELETE FROM wallets WHERE agent_id = 'POSTER'", "wallets cannot be deleted"},
		{"a changed transfer", "UPDATE transfers SET amount = 1", "transfers are immutable"},
		{"a deleted transfer", "DELETE FROM transfers", "transfers are immutable"},
		{"replaced transfers", services.ForEngine("INSERT OR REPLACE INTO transfers SELECT * FROM transfers", "TRUNCATE transfers CASCADE"), "transfers are immutable"},
		{"a second grant", transfer("grant:POSTER", "grant", "issuance", "available:POSTER", 100, "NULL"), "duplicated key not allowed"},
		{"a grant with another ID", transfer("grant:again", "grant", "issuance", "available:POSTER", 100, "NULL"), "a grant must go from issuance to an agent, once per agent"},
		{"a grant from another's wallet", transfer("grant:POSTER", "grant", "available:WORKER", "available:POSTER", 100, "NULL"), "a grant must go from issuance to an agent, once per agent"},
		{"a second payout", transfer("payout:COMPLETED", "payout", "escrow:COMPLETED", "available:WORKER", 22, "'COMPLETED'"), overdraft},
		{"a payout before completion", transfer("payout:ASSIGNED", "payout", "escrow:ASSIGNED", "available:WORKER", 18, "'ASSIGNED'"), mismatch},
		{"a payout to another agent", transfer("payout:COMPLETED", "payout", "escrow:COMPLETED", "available:POSTER", 22, "'COMPLETED'"), overdraft},
		{"a payout of the whole budget", transfer("payout:COMPLETED", "payout", "escrow:COMPLETED", "available:WORKER", 25, "'COMPLETED'"), overdraft},
		{"a payout from another escrow", transfer("payout:COMPLETED", "payout", "escrow:ASSIGNED", "available:WORKER", 22, "'COMPLETED'"), overdraft},
		{"a refund of a completed task", transfer("refund:COMPLETED", "refund", "escrow:COMPLETED", "available:POSTER", 25, "'COMPLETED'"), overdraft},
		{"a refund of an open task", transfer("refund:OPEN", "refund", "held:POSTER", "available:POSTER", 10, "'OPEN'"), mismatch},
		{"a second hold", transfer("hold:OPEN:2", "hold", "available:POSTER", "held:POSTER", 10, "'OPEN'"), mismatch},
		{"a hold of more than the budget", transfer("hold:OPEN", "hold", "available:POSTER", "held:POSTER", 11, "'OPEN'"), mismatch},
		{"a hold of another agent's credits", transfer("hold:OPEN", "hold", "available:WORKER", "held:WORKER", 10, "'OPEN'"), mismatch},
		{"an escrow of less than the budget", transfer("escrow:ASSIGNED:1", "escrow", "held:POSTER", "escrow:ASSIGNED", 19, "'ASSIGNED'"), mismatch},
		{"an escrow for a wrong attempt", transfer("escrow:ASSIGNED:2", "escrow", "held:POSTER", "escrow:ASSIGNED", 20, "'ASSIGNED'"), mismatch},
		{"a hire of a posted task", transfer("hire:ASSIGNED", "hire", "available:POSTER", "escrow:ASSIGNED", 20, "'ASSIGNED'"), mismatch},
		{"a reopen of an assigned task", transfer("reopen:ASSIGNED:1", "reopen", "escrow:ASSIGNED", "held:POSTER", 20, "'ASSIGNED'"), mismatch},
		{"a fee before completion", transfer("fee:ASSIGNED", "fee", "escrow:ASSIGNED", "fees", 2, "'ASSIGNED'"), mismatch},
		{"an escrow of an open task", transfer("escrow:OPEN:1", "escrow", "held:POSTER", "escrow:OPEN", 10, "'OPEN'"), mismatch},
		{"a transfer of 0 credits", transfer("hold:OPEN", "hold", "available:POSTER", "held:POSTER", 0, "'OPEN'"), mismatch},
		{"a transfer without a task", transfer("fee:none", "fee", "escrow:none", "fees", 1, "NULL"), overdraft},
		{"an unknown kind", transfer("gift:1", "gift", "available:POSTER", "available:WORKER", 1, "'OPEN'"), mismatch},
		{"a changed budget", "UPDATE tasks SET budget = 11 WHERE id = 'OPEN'", "the terms of a task cannot change"},
		{"an ended task assigned again", "UPDATE tasks SET status = 'assigned' WHERE id = 'COMPLETED'", "invalid change of task status"},
		{"a changed worker of an ended task", "UPDATE tasks SET worker_id = NULL WHERE id = 'COMPLETED'", "a task that has ended cannot change"},
		{"a deleted task", "DELETE FROM tasks WHERE id = 'OPEN'", "tasks cannot be deleted"},
		{"a task assigned to its poster", "UPDATE tasks SET status = 'assigned', attempt = 1, worker_id = 'POSTER' WHERE id = 'OPEN'", services.ForEngine("CHECK", "check constraint")},
		{"a changed event", "UPDATE events SET kind = 'task.posted'", "events are immutable"},
		{"replaced events", services.ForEngine("INSERT OR REPLACE INTO events (seq, kind, created_at) SELECT seq, kind, created_at FROM events", "TRUNCATE events CASCADE"), "events after the horizon cannot be deleted"},
		{"a deleted horizon", services.ForEngine("DELETE FROM event_horizon", "TRUNCATE event_horizon"), "event_horizon must have exactly one row"},
		{"deleted totals", services.ForEngine("DELETE FROM ledger_sums", "TRUNCATE ledger_sums"), "the ledger totals can only grow"},
		{"half a credit", "UPDATE agents SET price_per_task = '1.5'", services.ForEngine("cannot store REAL value in INTEGER column", "invalid input syntax for type bigint")},
	} {
		if err := s.exec(t, row.statement); err == nil || !strings.Contains(err.Error(), row.wantErr) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.wantErr)
		}
	}
	s.VerifyLedger()
}

// TestVerify checks that Verify detects changes made without triggers, one invariant at
// a time.
func TestVerify(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, statement, wantErr string }{
		{"a raised wallet", "UPDATE wallets SET available = available + 1 WHERE agent_id = 'WORKER'", "wallet of WORKER has 123 and 0 held, but its transfers sum to 122 and 0"},
		{"credits moved between wallets", "UPDATE wallets SET available = available + CASE agent_id WHEN 'WORKER' THEN 5 ELSE -5 END", "wallet of POSTER has 40"},
		{"a raised transfer", "UPDATE transfers SET amount = 21 WHERE id = 'escrow:ASSIGNED:1'", "escrow of ASSIGNED (assigned) holds 21 of a budget of 20"},
		{"a deleted payout", "DELETE FROM transfers WHERE id = 'payout:COMPLETED'", "task COMPLETED (completed) paid 3 and refunded 0 of 25"},
		{"an unknown account", "UPDATE transfers SET credit_account = 'available:nobody' WHERE id = 'grant:WORKER'", "transfer grant:WORKER names an unknown account"},
		{"a deleted hold", "DELETE FROM transfers WHERE id = 'hold:OPEN'", "its transfers sum to 55 and 0"},
		{"a raised budget", "UPDATE tasks SET budget = 12 WHERE id = 'OPEN'", "wallet of POSTER has 10 held, but its open tasks have budgets of 12"},
		{"an escrow for another task", "UPDATE transfers SET credit_account = 'escrow:OPEN' WHERE id = 'escrow:ASSIGNED:1'", "transfer escrow:ASSIGNED:1 names an unknown account"},
		{"a task cancelled without a refund", "UPDATE tasks SET status = 'cancelled' WHERE id = 'OPEN'", "task OPEN (cancelled) paid 0 and refunded 0 of 10"},
		{"a wrong balance", "UPDATE transfers SET balance_after = 7 WHERE id = 'payout:COMPLETED'", "transfer payout:COMPLETED has balance_after 7, but the transfers so far sum to 122"},
		{"a raised count", "UPDATE agents SET completed_count = 9 WHERE id = 'WORKER'", "agent WORKER has completed_count 9, but it completed 1"},
		{"a deleted event", "DELETE FROM events WHERE kind = 'task.completed'", "task COMPLETED is completed but has no event for it"},
		{"a capability with a wrong reputation", "INSERT INTO agent_capabilities (capability, agent_id, reputation, price_per_task) VALUES ('x', 'WORKER', 1, 10)", "capability x of agent WORKER has 1"},
		{"a capability with a wrong price", "INSERT INTO agent_capabilities (capability, agent_id, price_per_task) VALUES ('x', 'WORKER', 9)", "capability x of agent WORKER has 0"},
		{"a capability with a webhook that does not exist", "INSERT INTO agent_capabilities (capability, agent_id, price_per_task, has_webhook) VALUES ('x', 'WORKER', 10, 1)", "capability x of agent WORKER has 0"},
		{"a capability with an old task status", "INSERT INTO task_capabilities (capability, task_id) VALUES ('x', 'COMPLETED')", "capability x of task COMPLETED has status open, want completed"},
		{"a raised grant", "UPDATE transfers SET amount = 150 WHERE id = 'grant:POSTER'", "250 credits were issued but wallets, escrow and fees hold 200"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSampleMarket(t)
			var triggers []string
			testutil.Must(t, s.DB.Read(t.Context()).Raw(services.DropTriggersQuery()).Scan(&triggers).Error)
			testutil.Must(t, s.exec(t, append(triggers, row.statement)...))
			report, err := ledger.Verify(s.DB.Read(t.Context()))
			testutil.Must(t, err)
			if got := strings.Join(report.Violations, "\n"); !strings.Contains(got, s.replaceIDs(row.wantErr)) {
				t.Errorf("want %q in:\n%s", s.replaceIDs(row.wantErr), got)
			}
		})
	}
}

// TestHold_concurrent makes 50 concurrent holds of more credits than the poster has.
// Only those that fit succeed, and a second hold of a task fails.
func TestHold_concurrent(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster := b.NewAgent()
	var holds atomic.Int32
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			_, err := b.Post(t.Context(), poster, market.PostTaskInput{Title: "T", Description: "D", Budget: 7})
			switch {
			case err == nil:
				holds.Add(1)
			case models.CodeOf(err) != models.InsufficientFunds:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if available, held := b.Balances(poster); holds.Load() != 14 || available != 2 || held != 98 {
		t.Errorf("%d holds, %d left and %d held", holds.Load(), available, held)
	}
	var task models.Task
	testutil.Must(t, b.DB.Read(t.Context()).Take(&task).Error)
	err := b.DB.Write(t.Context(), func(tx *database.Tx) error {
		_, err := ledger.Hold(tx, models.NewTime(b.Clock.Now()), &task)
		return err
	})
	if err == nil {
		t.Error("a second hold succeeded")
	}
	b.VerifyLedger()
}
