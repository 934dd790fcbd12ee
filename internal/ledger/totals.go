package ledger

import (
	"context"
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// countBatchSize is the maximum number of events that one step of [UpdateTotals]
// includes.
const countBatchSize = 10_000

// grantsAndFeesSQL selects the transfers of grants and fees through their events.
// Cursors are assigned after commits, so no event appears later with a smaller
// cursor. Transfer numbers guarantee this only on SQLite.
const grantsAndFeesSQL = `FROM events e JOIN transfers t ON t.id = CASE e.kind WHEN 'task.completed' THEN 'fee:' || e.task_id ELSE e.transfer_id END
	WHERE (e.kind = 'task.completed' OR e.kind = 'wallet.changed' AND substr(e.transfer_id, 1, 6) = 'grant:')`

// Totals returns the credits issued and the fees earned. It reads only the events
// since the last [UpdateTotals].
func Totals(db *gorm.DB) (issued, fees models.Credits, err error) {
	var sums models.LedgerSums
	if err := db.Take(&sums, "one = 1").Error; err != nil {
		return 0, 0, fmt.Errorf("read ledger totals: %w", err)
	}
	delta, err := sumGrantsAndFees(db, "AND e.seq > ?", sums.Seq)
	return sums.Issued + delta.Issued, sums.Fees + delta.Fees, err
}

// BalanceSheet is the distribution of all credits, from stored balances.
type BalanceSheet struct {
	Issued, Fees    models.Credits
	Available, Held models.Credits // in wallets
	Escrow          models.Credits // of assigned tasks
}

// Discrepancy returns the issued credits that are missing from all balances. It is 0
// in a consistent database.
func (b *BalanceSheet) Discrepancy() models.Credits {
	return b.Issued - b.Fees - b.Available - b.Held - b.Escrow
}

// ReadBalanceSheet sums the wallets, the budgets of assigned tasks, the grants and the
// fees. Its cost grows with the number of agents, not transfers. [Verify] checks
// more. Call it in a snapshot.
func ReadBalanceSheet(snapshot *database.Snapshot) (BalanceSheet, error) {
	var b BalanceSheet
	err := snapshot.Raw(`SELECT COALESCE(SUM(available), 0) AS available, COALESCE(SUM(held), 0) AS held,
		(SELECT COALESCE(SUM(budget), 0) FROM tasks WHERE status = 'assigned') AS escrow FROM wallets`).Scan(&b).Error
	if err != nil {
		return b, fmt.Errorf("sum wallets: %w", err)
	}
	if b.Issued, b.Fees, err = Totals(snapshot); err != nil {
		return b, err
	}
	if snapshot.Name() != "postgres" {
		return b, nil
	}
	delta, err := sumGrantsAndFees(snapshot, "AND e.seq IS NULL") // committed events without a cursor
	b.Issued, b.Fees = b.Issued+delta.Issued, b.Fees+delta.Fees
	return b, err
}

// UpdateTotals adds new events to the stored totals and returns the cursor of the last
// event they include. Several processes can call it at the same time.
func UpdateTotals(ctx context.Context, db *database.DB) (seq int64, err error) {
	err = database.RunThrottled(ctx, func() (bool, error) {
		var before models.LedgerSums
		if err := db.Read(ctx).Take(&before, "one = 1").Error; err != nil {
			return false, err
		}
		seq = before.Seq
		var last int64
		if err := db.Read(ctx).Raw("SELECT COALESCE(MAX(seq), 0) FROM events").Scan(&last).Error; err != nil || last <= seq {
			return false, err
		}
		to := min(last, seq+countBatchSize)
		delta, err := sumGrantsAndFees(db.Read(ctx), "AND e.seq > ? AND e.seq <= ?", seq, to)
		if err != nil {
			return false, err
		}
		var updated int64
		err = db.Write(ctx, func(tx *database.Tx) error {
			sums := tx.Exec("UPDATE ledger_sums SET seq = ?, issued = issued + ?, fees = fees + ? WHERE seq = ?", // 0 rows if another process was first
				to, delta.Issued, delta.Fees, before.Seq)
			updated = sums.RowsAffected
			return sums.Error
		})
		if err != nil || updated == 0 {
			return err == nil, err
		}
		seq = to
		return to < last, nil
	})
	if err != nil {
		return 0, fmt.Errorf("update ledger totals: %w", err)
	}
	return seq, nil
}

// sumGrantsAndFees sums the grants and fees of the events that match a condition.
func sumGrantsAndFees(db *gorm.DB, condition string, args ...any) (models.LedgerSums, error) {
	var sums models.LedgerSums
	err := db.Raw(`SELECT COALESCE(SUM(t.amount) FILTER (WHERE t.kind = 'grant'), 0) AS issued,
		COALESCE(SUM(t.amount) FILTER (WHERE t.kind = 'fee'), 0) AS fees `+grantsAndFeesSQL+" "+condition, args...).Scan(&sums).Error
	return sums, err
}
