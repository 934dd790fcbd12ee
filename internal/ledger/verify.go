package ledger

import (
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// Report is the result of [Verify]. Issued and the In fields are credits.
type Report struct {
	Issued     models.Credits `json:"issued"`
	InWallets  models.Credits `json:"in_wallets"` // available and held
	InEscrow   models.Credits `json:"in_escrow"`
	InFees     models.Credits `json:"in_fees"`
	Transfers  int64          `json:"transfers"`
	Agents     int64          `json:"agents"`
	Tasks      int64          `json:"tasks"`
	Violations []string       `json:"violations"` // empty if the ledger is consistent
}

// maxViolations is the maximum number of violations per invariant in a report.
const maxViolations = 20

// invariant is a rule about the whole database. Its query returns one text for each
// violation.
type invariant struct{ name, query string }

// invariants returns the rules that every committed state satisfies.
func invariants() []invariant {
	return []invariant{
		{"each wallet equals the sum of its transfers", `
			WITH moved (account, amount) AS (
				SELECT credit_account, amount FROM transfers UNION ALL SELECT debit_account, -amount FROM transfers),
			sums (account, total) AS (SELECT account, SUM(amount) FROM moved GROUP BY account)
			SELECT 'wallet of ' || w.agent_id || ' has ' || w.available || ' and ' || w.held || ' held, but its transfers sum to '
				|| COALESCE(a.total, 0) || ' and ' || COALESCE(h.total, 0)
			FROM wallets w LEFT JOIN sums a ON a.account = 'available:' || w.agent_id LEFT JOIN sums h ON h.account = 'held:' || w.agent_id
			WHERE w.available <> COALESCE(a.total, 0) OR w.held <> COALESCE(h.total, 0)`},
		{"each account of a transfer exists", `
			SELECT 'transfer ' || t.id || ' names an unknown account' FROM transfers t
			WHERE NOT (t.debit_account = 'issuance' OR EXISTS (SELECT 1 FROM wallets w WHERE t.debit_account IN ('available:' || w.agent_id, 'held:' || w.agent_id)
					AND w.agent_id IN (substr(t.debit_account, 11), substr(t.debit_account, 6)))
				OR t.debit_account = 'escrow:' || COALESCE(t.task_id, ''))
			OR NOT (t.credit_account = 'fees' OR EXISTS (SELECT 1 FROM wallets w WHERE t.credit_account IN ('available:' || w.agent_id, 'held:' || w.agent_id)
					AND w.agent_id IN (substr(t.credit_account, 11), substr(t.credit_account, 6)))
				OR t.credit_account = 'escrow:' || COALESCE(t.task_id, ''))`},
		{"held credits equal the budgets of open tasks", `
			SELECT 'wallet of ' || w.agent_id || ' has ' || w.held || ' held, but its open tasks have budgets of ' || COALESCE(SUM(t.budget), 0)
			FROM wallets w LEFT JOIN tasks t ON t.poster_id = w.agent_id AND t.status = 'open'
			GROUP BY w.agent_id, w.held HAVING w.held <> COALESCE(SUM(t.budget), 0)`},
		{"an escrow holds the budget of an assigned task, and is empty otherwise", `
			WITH moved (task_id, amount) AS (
				SELECT task_id, amount FROM transfers WHERE credit_account = 'escrow:' || task_id
				UNION ALL SELECT task_id, -amount FROM transfers WHERE debit_account = 'escrow:' || task_id),
			sums (task_id, total) AS (SELECT task_id, SUM(amount) FROM moved GROUP BY task_id)
			SELECT 'escrow of ' || t.id || ' (' || t.status || ') holds ' || COALESCE(s.total, 0) || ' of a budget of ' || t.budget
			FROM tasks t LEFT JOIN sums s ON s.task_id = t.id
			WHERE COALESCE(s.total, 0) <> CASE t.status WHEN 'assigned' THEN t.budget ELSE 0 END`},
		{"a completed task paid its budget, and other ended tasks refunded it", `
			SELECT 'task ' || t.id || ' (' || t.status || ') paid ' || COALESCE(SUM(x.amount) FILTER (WHERE x.kind IN ('payout', 'fee')), 0)
				|| ' and refunded ' || COALESCE(SUM(x.amount) FILTER (WHERE x.kind = 'refund'), 0) || ' of ' || t.budget
			FROM tasks t LEFT JOIN transfers x ON x.task_id = t.id AND x.kind IN ('payout', 'fee', 'refund')
			GROUP BY t.id, t.status, t.budget
			HAVING COALESCE(SUM(x.amount) FILTER (WHERE x.kind IN ('payout', 'fee')), 0) <> CASE t.status WHEN 'completed' THEN t.budget ELSE 0 END
				OR COALESCE(SUM(x.amount) FILTER (WHERE x.kind = 'refund'), 0) <> CASE WHEN t.status IN ('cancelled', 'expired', 'failed') THEN t.budget ELSE 0 END`},
		{"balance_after is the sum of the transfers so far", `
			WITH lines (agent, seq, id, amount, after) AS (
				SELECT substr(credit_account, 11), seq, id, amount, balance_after FROM transfers WHERE credit_account LIKE 'available:%'
				UNION ALL SELECT substr(debit_account, 11), seq, id, -amount, balance_after FROM transfers WHERE debit_account LIKE 'available:%'),
			running AS (SELECT id, after, SUM(amount) OVER (PARTITION BY agent ORDER BY seq) AS total FROM lines)
			SELECT 'transfer ' || id || ' has balance_after ' || after || ', but the transfers so far sum to ' || total FROM running WHERE after <> total`},
		{"completed_count equals the number of completed tasks", `
			SELECT 'agent ' || a.id || ' has completed_count ' || a.completed_count || ', but it completed ' || COUNT(t.id)
			FROM agents a LEFT JOIN tasks t ON t.worker_id = a.id AND t.status = 'completed'
			GROUP BY a.id, a.completed_count HAVING a.completed_count <> COUNT(t.id)`},
		{"each task has the event of its status, unless the event was pruned", `
			SELECT 'task ' || t.id || ' is ' || t.status || ' but has no event for it' FROM tasks t
			LEFT JOIN (SELECT DISTINCT task_id, kind FROM events) e ON e.task_id = t.id
				AND e.kind = CASE t.status WHEN 'open' THEN 'task.posted' WHEN 'assigned' THEN 'task.accepted' ELSE 'task.' || t.status END
			WHERE e.task_id IS NULL AND (SELECT created_at FROM event_horizon) <
				CASE t.status WHEN 'open' THEN t.created_at WHEN 'assigned' THEN t.accepted_at WHEN 'completed' THEN t.completed_at ELSE t.closed_at END`},
		{"the ledger totals equal the transfers", `
			WITH delta (amount, kind) AS (SELECT t.amount, t.kind ` + grantsAndFeesSQL + ` AND (e.seq IS NULL OR e.seq > (SELECT seq FROM ledger_sums))),
			sums (name, counted, total) AS (
				SELECT 'issued', issued + (SELECT COALESCE(SUM(amount), 0) FROM delta WHERE kind = 'grant'),
					(SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = 'issuance') FROM ledger_sums
				UNION ALL SELECT 'fees', fees + (SELECT COALESCE(SUM(amount), 0) FROM delta WHERE kind = 'fee'),
					(SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = 'fees') FROM ledger_sums)
			SELECT 'the total of ' || name || ' is ' || counted || ', but the transfers sum to ' || total FROM sums WHERE counted <> total`},
		{"the log has no events up to its horizon", `
			SELECT 'event ' || e.seq || ' is not after the horizon' FROM events e WHERE e.seq <= (SELECT seq FROM event_horizon)`},
		{"capability rows match their agent or task", `
			SELECT 'capability ' || c.capability || ' of agent ' || c.agent_id || ' has ' || c.reputation || ', ' || c.price_per_task || ' and ' || c.has_webhook
				|| ', want ' || a.reputation || ', ' || a.price_per_task || ' and ' || CASE WHEN w.agent_id IS NULL THEN 0 ELSE 1 END
			FROM agent_capabilities c JOIN agents a ON a.id = c.agent_id LEFT JOIN webhooks w ON w.agent_id = a.id
			WHERE c.reputation <> a.reputation OR c.price_per_task <> a.price_per_task OR c.has_webhook <> CASE WHEN w.agent_id IS NULL THEN 0 ELSE 1 END
			UNION ALL SELECT 'capability ' || c.capability || ' of task ' || c.task_id || ' has status ' || c.status || ', want ' || t.status
			FROM task_capabilities c JOIN tasks t ON t.id = c.task_id WHERE c.status <> t.status`},
	}
}

// Verify recomputes the ledger from its transfers and reports all violations. Call it
// in a snapshot: otherwise concurrent writes appear as violations.
func Verify(db *gorm.DB) (Report, error) {
	report := Report{Violations: []string{}}
	err := db.Raw(`SELECT
		(SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account = 'issuance') AS issued,
		(SELECT COALESCE(SUM(available + held), 0) FROM wallets) AS in_wallets,
		(SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account LIKE 'escrow:%')
			- (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE debit_account LIKE 'escrow:%') AS in_escrow,
		(SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE credit_account = 'fees') AS in_fees,
		(SELECT COUNT(*) FROM transfers) AS transfers,
		(SELECT COUNT(*) FROM agents) AS agents,
		(SELECT COUNT(*) FROM tasks) AS tasks`).Row().
		Scan(&report.Issued, &report.InWallets, &report.InEscrow, &report.InFees, &report.Transfers, &report.Agents, &report.Tasks)
	if err != nil {
		return Report{}, fmt.Errorf("sum the ledger: %w", err)
	}
	if held := report.InWallets + report.InEscrow + report.InFees; held != report.Issued {
		report.Violations = append(report.Violations,
			fmt.Sprintf("%d credits were issued but wallets, escrow and fees hold %d", report.Issued, held))
	}
	for _, rule := range invariants() {
		var violations []string
		if err := db.Raw(rule.query + fmt.Sprintf(" LIMIT %d", maxViolations)).Scan(&violations).Error; err != nil {
			return Report{}, fmt.Errorf("verify that %s: %w", rule.name, err)
		}
		report.Violations = append(report.Violations, violations...)
	}
	violations, err := verifySearch(db)
	report.Violations = append(report.Violations, violations...)
	return report, err
}
