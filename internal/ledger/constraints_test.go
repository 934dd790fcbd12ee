package ledger_test

import (
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestDatabase_checkConstraints checks that table constraints reject invalid rows
// without triggers.
func TestDatabase_checkConstraints(t *testing.T) {
	t.Parallel()
	s := newSampleMarket(t)
	var triggers []string
	testutil.Must(t, s.DB.Read(t.Context()).Raw(services.DropTriggersQuery()).Scan(&triggers).Error)
	testutil.Must(t, s.exec(t, triggers...))
	const transfer = "INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, balance_after, created_at) VALUES "
	for _, row := range []struct{ name, statement, wantErr string }{
		{"a negative available balance", "UPDATE wallets SET available = -1 WHERE agent_id = 'POSTER'", "CHECK constraint failed: available >= 0"},
		{"a negative held balance", "UPDATE wallets SET held = -1 WHERE agent_id = 'POSTER'", "CHECK constraint failed: held >= 0"},
		{"half a credit", "UPDATE wallets SET available = available + 0.5 WHERE agent_id = 'POSTER'", "cannot store REAL value in INTEGER column wallets.available"},
		{"a transfer of 0 credits", transfer + "('fee:ASSIGNED', 'fee', 'escrow:ASSIGNED', 'fees', 0, 'ASSIGNED', NULL, 0)", "CHECK constraint failed: amount > 0"},
		{"a negative transfer", transfer + "('fee:ASSIGNED', 'fee', 'escrow:ASSIGNED', 'fees', -3, 'ASSIGNED', NULL, 0)", "CHECK constraint failed: amount > 0"},
		{"an unknown kind", transfer + "('gift:1', 'gift', 'escrow:ASSIGNED', 'fees', 1, 'ASSIGNED', NULL, 0)", "CHECK constraint failed: kind IN"},
		{"a grant for a task", transfer + "('grant:WORKER:2', 'grant', 'issuance', 'available:WORKER', 1, 'OPEN', 1, 0)", "CHECK constraint failed: (kind = 'grant') = (task_id IS NULL)"},
		{"a transfer without balance_after", transfer + "('refund:OPEN', 'refund', 'held:POSTER', 'available:POSTER', 10, 'OPEN', NULL, 0)", "CHECK constraint failed: (balance_after IS NOT NULL)"},
		{"a negative balance_after", transfer + "('refund:OPEN', 'refund', 'held:POSTER', 'available:POSTER', 10, 'OPEN', -1, 0)", "CHECK constraint failed: balance_after >= 0"},
		{"a second payout", transfer + "('payout:COMPLETED', 'payout', 'escrow:COMPLETED', 'available:WORKER', 22, 'COMPLETED', 1, 0)", "duplicated key"},
		{"a second escrow", transfer + "('escrow:ASSIGNED:1', 'escrow', 'held:POSTER', 'escrow:ASSIGNED', 20, 'ASSIGNED', NULL, 0)", "duplicated key"},
		{"an unknown task", transfer + "('fee:none', 'fee', 'escrow:none', 'fees', 1, 'none', NULL, 0)", "foreign key"},
		{"a result of an assigned task", "UPDATE tasks SET result = 'done' WHERE id = 'ASSIGNED'", "CHECK constraint failed: (status = 'completed') = (result IS NOT NULL)"},
		{"a budget below the minimum", "UPDATE tasks SET budget = 1 WHERE id = 'OPEN'", "CHECK constraint failed: budget BETWEEN 2 AND 1000000000"},
		{"an open direct hire", "UPDATE tasks SET origin = 'direct' WHERE id = 'OPEN'", "CHECK constraint failed: origin = 'marketplace'"},
		{"a rating above 5", "UPDATE tasks SET rating_score = 6 WHERE id = 'COMPLETED'", "CHECK constraint failed: rating_score BETWEEN 1 AND 5"},
		{"a rating of an assigned task", "UPDATE tasks SET rating_score = 5 WHERE id = 'ASSIGNED'", "CHECK constraint failed: status = 'completed' OR rating_score IS NULL"},
	} {
		if services.OnPostgres() {
			switch {
			case strings.HasPrefix(row.wantErr, "CHECK"):
				row.wantErr = "violates check constraint"
			case strings.HasPrefix(row.wantErr, "cannot store REAL"): // PostgreSQL rounds to a whole number
				continue
			}
		}
		if err := s.exec(t, row.statement); err == nil || !strings.Contains(err.Error(), row.wantErr) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.wantErr)
		}
	}
	s.VerifyLedger()
}
