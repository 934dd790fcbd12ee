package ledger

import (
	"fmt"
	"maps"
	"slices"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// OpenWallet makes an agent's wallet and grants it its first credits, which may
// be none.
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
		DebitAccount: models.Issuance, CreditAccount: models.AvailableAccount(agentID),
	}))
}

// Hold sets a posted task's budget aside in the poster's wallet. A poster who
// has less is refused with INSUFFICIENT_CREDITS.
func Hold(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	return singleWallet(applyTransfers(tx, now, newTransfer(task, models.Hold, HoldID(task.ID),
		models.AvailableAccount(task.PosterID), models.HeldAccount(task.PosterID), task.Budget)))
}

// Escrow hands the budget that was set aside over to the task.
func Escrow(tx *database.Tx, now models.Time, task *models.Task) error {
	_, err := applyTransfers(tx, now, newTransfer(task, models.Escrow, fmt.Sprintf("escrow:%s:%d", task.ID, task.Attempt),
		models.HeldAccount(task.PosterID), models.EscrowAccount(task.ID), task.Budget))
	return err
}

// Reopen takes the budget back from a released task and sets it aside again.
func Reopen(tx *database.Tx, now models.Time, task *models.Task) error {
	_, err := applyTransfers(tx, now, newTransfer(task, models.Reopen, fmt.Sprintf("reopen:%s:%d", task.ID, task.Attempt),
		models.EscrowAccount(task.ID), models.HeldAccount(task.PosterID), task.Budget))
	return err
}

// Hire hands the budget of a direct hire over to its task. A poster who has
// less is refused with INSUFFICIENT_CREDITS.
func Hire(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	return singleWallet(applyTransfers(tx, now, newTransfer(task, models.Hire, HireID(task.ID),
		models.AvailableAccount(task.PosterID), models.EscrowAccount(task.ID), task.Budget)))
}

// Pay shares a completed task's budget between its worker and the platform and
// returns the worker's wallet.
func Pay(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	worker, fee := task.Budget.Split()
	return singleWallet(applyTransfers(tx, now,
		newTransfer(task, models.Payout, PayoutID(task.ID), models.EscrowAccount(task.ID), models.AvailableAccount(*task.WorkerID), worker),
		newTransfer(task, models.Fee, "fee:"+task.ID, models.EscrowAccount(task.ID), models.Fees, fee),
	))
}

// RefundHeld gives the budget of a task that nobody worked on back to its
// poster.
func RefundHeld(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	return refund(tx, now, task, models.HeldAccount(task.PosterID))
}

// RefundEscrow gives the budget of a task that was under way back to its
// poster.
func RefundEscrow(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
	return refund(tx, now, task, models.EscrowAccount(task.ID))
}

func refund(tx *database.Tx, now models.Time, task *models.Task, from models.Account) (models.Wallet, error) {
	return singleWallet(applyTransfers(tx, now, newTransfer(task, models.Refund, RefundID(task.ID), from, models.AvailableAccount(task.PosterID), task.Budget)))
}

// GrantID is the id of the one grant that an agent gets.
func GrantID(agentID string) string { return "grant:" + agentID }

// HoldID is the id of the one hold that a task can have.
func HoldID(taskID string) string { return "hold:" + taskID }

// HireID is the id of the transfer that paid for a direct hire in advance.
func HireID(taskID string) string { return "hire:" + taskID }

// PayoutID is the id of the one payout that a task can have.
func PayoutID(taskID string) string { return "payout:" + taskID }

// RefundID is the id of the one refund that a task can have.
func RefundID(taskID string) string { return "refund:" + taskID }

func newTransfer(task *models.Task, kind models.TransferKind, id string, debit, credit models.Account, amount models.Credits) models.Transfer {
	return models.Transfer{ID: id, Kind: kind, DebitAccount: debit, CreditAccount: credit, Amount: amount, TaskID: &task.ID}
}

// singleWallet returns the wallet of a move that touches a single one.
func singleWallet(wallets []models.Wallet, err error) (models.Wallet, error) {
	if err != nil {
		return models.Wallet{}, err
	}
	return wallets[0], nil
}

// applyTransfers books transfers that belong together and returns the wallets they
// touched, in the order of their agents' ids. Wallets are locked first, in that
// order, so that two moves that share wallets never wait for each other in a
// ring; a verb calls it last, so that it holds them for a moment only.
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
			return nil, fmt.Errorf("book %s: %w", t.ID, err)
		}
	}
	var after []models.Wallet
	for _, agentID := range slices.Sorted(maps.Keys(wallets)) {
		if err := updateWallet(tx, wallets[agentID]); err != nil {
			return nil, err
		}
		after = append(after, wallets[agentID].after)
	}
	return after, nil
}

// walletChange is a wallet before and after a move, and the last transfer of the move
// that it counts.
type walletChange struct {
	before, after  models.Wallet
	lastTransferID string
}

// lockWallets reads the wallets that the transfers touch and locks them, in the order
// of their agents' ids. Transfers written after it are numbered in the order in
// which their wallet counts them.
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
			return nil, fmt.Errorf("read the wallet of %s: %w", agentID, err)
		}
		wallets[agentID] = &walletChange{before: wallet, after: wallet}
	}
	return wallets, nil
}

// applyInMemory moves the credits of t between the wallets in memory and notes the
// balance after it.
func applyInMemory(wallets map[string]*walletChange, t *models.Transfer) error {
	if agentID, spendable := t.DebitAccount.Owner(); agentID != "" {
		wallet := &wallets[agentID].after
		part := &wallet.Held
		if spendable {
			part = &wallet.Available
		}
		if *part < t.Amount {
			return models.Errorf(models.InsufficientFunds, "this takes %d credits; %d can be spent", t.Amount, wallet.Available)
		}
		*part -= t.Amount
	}
	if agentID, spendable := t.CreditAccount.Owner(); agentID != "" {
		part := &wallets[agentID].after.Held
		if spendable {
			part = &wallets[agentID].after.Available
		}
		*part += t.Amount
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

// insertTransfer writes a transfer.
func insertTransfer(tx *database.Tx, t *models.Transfer) error {
	return tx.ExecOne(`INSERT INTO transfers (id, kind, debit_account, credit_account, amount, task_id, balance_after, created_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.Kind, t.DebitAccount, t.CreditAccount, t.Amount, t.TaskID, t.BalanceAfter, t.CreatedAt)
}

// updateWallet changes a wallet by the difference, guarded against falling below zero
// and against a change that was not seen by load.
func updateWallet(tx *database.Tx, c *walletChange) error {
	available, held := c.after.Available-c.before.Available, c.after.Held-c.before.Held
	err := tx.ExecOne(`UPDATE wallets SET available = available + ?, held = held + ?, last_seq = (SELECT seq FROM transfers WHERE id = ?)
		WHERE agent_id = ? AND last_seq = ? AND available + ? >= 0 AND held + ? >= 0`,
		available, held, c.lastTransferID, c.after.AgentID, c.before.LastSeq, available, held)
	if err != nil {
		return fmt.Errorf("change the wallet of %s: %w", c.after.AgentID, err)
	}
	return nil
}
