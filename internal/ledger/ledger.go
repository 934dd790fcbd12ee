package ledger

import (
	"fmt"
	"maps"
	"slices"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// OpenWallet creates an agent's wallet and grants its initial credits, which can be
// 0.
func OpenWallet(tx *database.Tx, now models.Time, agentID string, grant models.Credits) (models.Wallet, error) {
	wallet := models.Wallet{AgentID: agentID}
	if err := tx.Create(&wallet).Error; err != nil {
		return models.Wallet{}, err
	}
	if grant == 0 {
		return wallet, nil
	}
	return singleWallet(applyTransfers(tx, now, models.Transfer{
		ID: GrantID(agentID), Kind: models.Grant, Amount: grant,
		DebitAccount: models.IssuanceAccount, CreditAccount: models.AvailableAccount(agentID),
	}))
}

// Hold moves a posted task's budget from available to held in the poster's wallet. It
// returns INSUFFICIENT_CREDITS if less is available.
func Hold(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	return singleWallet(applyTransfers(tx, now, newTransfer(task, models.Hold, HoldID(task.ID),
		models.AvailableAccount(task.PosterID), models.HeldAccount(task.PosterID), task.Budget)))
}

// Escrow moves the held budget to the escrow account of the assigned task.
func Escrow(tx *database.Tx, now models.Time, task *models.Task) error {
	_, err := applyTransfers(tx, now, newTransfer(task, models.Escrow, fmt.Sprintf("escrow:%s:%d", task.ID, task.Attempt),
		models.HeldAccount(task.PosterID), models.EscrowAccount(task.ID), task.Budget))
	return err
}

// Reopen moves the budget of a released task from escrow back to held.
func Reopen(tx *database.Tx, now models.Time, task *models.Task) error {
	_, err := applyTransfers(tx, now, newTransfer(task, models.Reopen, fmt.Sprintf("reopen:%s:%d", task.ID, task.Attempt),
		models.EscrowAccount(task.ID), models.HeldAccount(task.PosterID), task.Budget))
	return err
}

// Hire moves the budget of a direct hire from available to escrow. It returns
// INSUFFICIENT_CREDITS if less is available.
func Hire(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	return singleWallet(applyTransfers(tx, now, newTransfer(task, models.Hire, HireID(task.ID),
		models.AvailableAccount(task.PosterID), models.EscrowAccount(task.ID), task.Budget)))
}

// Pay moves a completed task's budget from escrow to its worker and the platform. It
// returns the worker's wallet.
func Pay(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	worker, fee := task.Budget.Split()
	return singleWallet(applyTransfers(tx, now,
		newTransfer(task, models.Payout, PayoutID(task.ID), models.EscrowAccount(task.ID), models.AvailableAccount(*task.WorkerID), worker),
		newTransfer(task, models.Fee, "fee:"+task.ID, models.EscrowAccount(task.ID), models.FeesAccount, fee),
	))
}

// RefundHeld moves the budget of a task without a worker from held back to available.
func RefundHeld(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	return refund(tx, now, task, models.HeldAccount(task.PosterID))
}

// RefundEscrow moves the budget of an assigned task from escrow back to the poster.
func RefundEscrow(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	return refund(tx, now, task, models.EscrowAccount(task.ID))
}

func refund(tx *database.Tx, now models.Time, task *models.Task, from models.Account) (models.Wallet, error) {
	return singleWallet(applyTransfers(tx, now, newTransfer(task, models.Refund, RefundID(task.ID), from, models.AvailableAccount(task.PosterID), task.Budget)))
}

// GrantID returns the ID of an agent's only grant.
func GrantID(agentID string) string { return "grant:" + agentID }

// HoldID returns the ID of a task's only hold.
func HoldID(taskID string) string { return "hold:" + taskID }

// HireID returns the ID of the transfer that pays for a direct hire.
func HireID(taskID string) string { return "hire:" + taskID }

// PayoutID returns the ID of a task's only payout.
func PayoutID(taskID string) string { return "payout:" + taskID }

// RefundID returns the ID of a task's only refund.
func RefundID(taskID string) string { return "refund:" + taskID }

func newTransfer(task *models.Task, kind models.TransferKind, id string, debit, credit models.Account, amount models.Credits) models.Transfer {
	return models.Transfer{ID: id, Kind: kind, DebitAccount: debit, CreditAccount: credit, Amount: amount, TaskID: &task.ID}
}

// singleWallet returns the only wallet that a move changed.
func singleWallet(wallets []models.Wallet, err error) (models.Wallet, error) {
	if err != nil {
		return models.Wallet{}, err
	}
	return wallets[0], nil
}

// applyTransfers inserts the transfers of one move and returns the changed wallets,
// ordered by agent ID. It locks the wallets in that order, so concurrent moves
// cannot deadlock. Operations call it last, to hold the locks only briefly.
func applyTransfers(tx *database.Tx, now models.Time, transfers ...models.Transfer) ([]models.Wallet, error) {
	wallets, err := lockWallets(tx, transfers)
	if err != nil {
		return nil, err
	}
	for i := range transfers {
		t := &transfers[i]
		t.CreatedAt = now
		if err := applyInMemory(wallets, t); err != nil {
			return nil, err
		}
		if err := insertTransfer(tx, t); err != nil {
			return nil, fmt.Errorf("insert transfer %s: %w", t.ID, err)
		}
	}
	var changed []models.Wallet
	for _, agentID := range slices.Sorted(maps.Keys(wallets)) {
		if err := updateWallet(tx, wallets[agentID]); err != nil {
			return nil, err
		}
		changed = append(changed, wallets[agentID].after)
	}
	return changed, nil
}

// walletChange is a wallet before and after a move, and the ID of the move's last
// transfer that changes it.
type walletChange struct {
	before, after  models.Wallet
	lastTransferID string
}

// lockWallets locks and reads the wallets of the transfers, ordered by agent ID. The
// lock also makes the transfer numbers follow the order of the wallet updates.
func lockWallets(tx *database.Tx, transfers []models.Transfer) (map[string]*walletChange, error) {
	wallets := map[string]*walletChange{}
	for i := range transfers {
		for _, account := range []models.Account{transfers[i].DebitAccount, transfers[i].CreditAccount} {
			if agentID, _ := account.Owner(); agentID != "" {
				wallets[agentID] = nil
			}
		}
	}
	for _, agentID := range slices.Sorted(maps.Keys(wallets)) {
		wallet := models.Wallet{AgentID: agentID}
		err := tx.QueryRowForUpdate("SELECT available, held, last_seq FROM wallets WHERE agent_id = ?", []any{agentID},
			&wallet.Available, &wallet.Held, &wallet.LastSeq)
		if err != nil {
			return nil, fmt.Errorf("read wallet of %s: %w", agentID, err)
		}
		wallets[agentID] = &walletChange{before: wallet, after: wallet}
	}
	return wallets, nil
}

// applyInMemory applies t to the wallets in memory and sets its BalanceAfter.
func applyInMemory(wallets map[string]*walletChange, t *models.Transfer) error {
	if agentID, spendable := t.DebitAccount.Owner(); agentID != "" {
		wallet := &wallets[agentID].after
		balance := &wallet.Held
		if spendable {
			balance = &wallet.Available
		}
		if *balance < t.Amount {
			return models.Errorf(models.InsufficientFunds, "this costs %d credits, and only %d are available", t.Amount, wallet.Available)
		}
		*balance -= t.Amount
	}
	if agentID, spendable := t.CreditAccount.Owner(); agentID != "" {
		balance := &wallets[agentID].after.Held
		if spendable {
			balance = &wallets[agentID].after.Available
		}
		*balance += t.Amount
	}
	for _, account := range []models.Account{t.DebitAccount, t.CreditAccount} {
		agentID, spendable := account.Owner()
		if agentID != "" {
			wallets[agentID].lastTransferID = t.ID
		}
		if spendable {
			balance := wallets[agentID].after.Available
			t.BalanceAfter = &balance
		}
	}
	return nil
}

// insertTransfer inserts a transfer.
func insertTransfer(tx *database.Tx, t *models.Transfer) error {
	return tx.ExecOne(`INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, balance_after, created_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.Kind, t.DebitAccount, t.CreditAccount, t.Amount, t.TaskID, t.BalanceAfter, t.CreatedAt)
}

// updateWallet adds the difference to a wallet. The update fails if a balance would be
// negative or the wallet has changed since lockWallets read it.
func updateWallet(tx *database.Tx, c *walletChange) error {
	available, held := c.after.Available-c.before.Available, c.after.Held-c.before.Held
	err := tx.ExecOne(`UPDATE wallets SET available = available + ?, held = held + ?, last_seq = (SELECT seq FROM transfers WHERE id = ?)
		WHERE agent_id = ? AND last_seq = ? AND available + ? >= 0 AND held + ? >= 0`,
		available, held, c.lastTransferID, c.after.AgentID, c.before.LastSeq, available, held)
	if err != nil {
		return fmt.Errorf("update wallet of %s: %w", c.after.AgentID, err)
	}
	return nil
}
