package ledger

import (
	"context"
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// countBatchSize is how many events one step of [UpdateTotals] goes through.
const countBatchSize = 10_000

// grantsAndFeesSQL is the grants and fees that the events between two cursors tell of.
// Cursors are given after commits, so that nothing can turn up later below one that
// was counted; the numbers of transfers promise that on SQLite only.
const grantsAndFeesSQL = `FROM events e JOIN transfers t ON t.id = CASE e.kind WHEN 'task.completed' THEN 'fee:' || e.task_id ELSE e.transfer_id END
	WHERE (e.kind = 'task.completed' OR e.kind = 'wallet.changed' AND substr(e.transfer_id, 1, 6) = 'grant:')`

// Totals returns the credits that were issued and those that the platform earned.
// It reads what happened since the last [UpdateTotals] alone.
func Totals(db *gorm.DB) (issued, fees models.Credits, err error) {
	var sums models.LedgerSums
	if err := db.Take(&sums, "one = 1").Error; err != nil {
		return 0, 0, fmt.Errorf("read the sums of the ledger: %w", err)
	}
	more, err := sumGrantsAndFees(db, "AND e.seq > ?", sums.Seq)
	return sums.Issued + more.Issued, sums.Fees + more.Fees, err
}

// BalanceSheet is where the credits of a store are, by what is kept to be read at once.
type BalanceSheet struct {
	Issued, Fees    models.Credits
	Available, Held models.Credits // in wallets
	Escrow          models.Credits // of tasks that somebody works on
}

// Discrepancy is by how much more was issued than there is: 0 in a store that is sound.
func (b *BalanceSheet) Discrepancy() models.Credits {
	return b.Issued - b.Fees - b.Available - b.Held - b.Escrow
}

// ReadBalanceSheet adds up wallets, budgets under way, grants and fees. It costs as much as
// there are agents, not as there were transfers; [Verify] is thorough. Read it inside
// one snapshot.
func ReadBalanceSheet(state *database.Snapshot) (BalanceSheet, error) {
	var b BalanceSheet
	err := state.Raw(`SELECT COALESCE(SUM(available), 0) AS available, COALESCE(SUM(held), 0) AS held,
		(SELECT COALESCE(SUM(budget), 0) FROM tasks WHERE status = 'assigned') AS escrow FROM wallets`).Scan(&b).Error
	if err != nil {
		return b, fmt.Errorf("add up wallets: %w", err)
	}
	if b.Issued, b.Fees, err = Totals(state); err != nil {
		return b, err
	}
	if state.Name() != "postgres" {
		return b, nil
	}
	later, err := sumGrantsAndFees(state, "AND e.seq IS NULL") // committed, and without a cursor yet
	b.Issued, b.Fees = b.Issued+later.Issued, b.Fees+later.Fees
	return b, err
}

// UpdateTotals adds what has happened to the sums that [Totals] begins with and returns
// the cursor up to which everything is counted. Several processes may count at once.
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
		more, err := sumGrantsAndFees(db.Read(ctx), "AND e.seq > ? AND e.seq <= ?", seq, to)
		if err != nil {
			return false, err
		}
		var counted int64
		err = db.Write(ctx, func(tx *database.Tx) error {
			sums := tx.Exec("UPDATE ledger_sums SET seq = ?, issued = issued + ?, fees = fees + ? WHERE seq = ?", // unless another has
				to, more.Issued, more.Fees, before.Seq)
			counted = sums.RowsAffected
			return sums.Error
		})
		if err != nil || counted == 0 {
			return err == nil, err
		}
		seq = to
		return to < last, nil
	})
	if err != nil {
		return 0, fmt.Errorf("count the ledger: %w", err)
	}
	return seq, nil
}

// sumGrantsAndFees sums up the grants and the fees of some events.
func sumGrantsAndFees(db *gorm.DB, which string, args ...any) (models.LedgerSums, error) {
	var sums models.LedgerSums
	err := db.Raw(`SELECT COALESCE(SUM(t.amount) FILTER (WHERE t.kind = 'grant'), 0) AS issued,
		COALESCE(SUM(t.amount) FILTER (WHERE t.kind = 'fee'), 0) AS fees `+grantsAndFeesSQL+" "+which, args...).Scan(&sums).Error
	return sums, err
}
