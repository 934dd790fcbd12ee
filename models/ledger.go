package models

import "strings"

// Wallet is the balance of an agent. Available credits can be spent. Held credits are
// reserved for its open tasks. LastSeq is the newest transfer included.
type Wallet struct {
	AgentID   string `gorm:"primaryKey"`
	Available Credits
	Held      Credits
	LastSeq   int64
}

// LedgerSums holds the credits issued and the fees earned up to the event Seq.
type LedgerSums struct {
	One    int64 `gorm:"primaryKey;autoIncrement:false"` // always 1
	Seq    int64
	Issued Credits
	Fees   Credits
}

// Account is an account of the ledger.
type Account string

// The accounts of the platform. All credits come from IssuanceAccount.
const (
	IssuanceAccount Account = "issuance"
	FeesAccount     Account = "fees"
)

const (
	availablePrefix = "available:"
	heldPrefix      = "held:"
	escrowPrefix    = "escrow:"
)

// AvailableAccount returns the account that an agent spends from.
func AvailableAccount(agentID string) Account { return Account(availablePrefix + agentID) }

// HeldAccount returns the account with an agent's credits for its open tasks.
func HeldAccount(agentID string) Account { return Account(heldPrefix + agentID) }

// EscrowAccount returns the account with the budget of an assigned task.
func EscrowAccount(taskID string) Account { return Account(escrowPrefix + taskID) }

// Owner returns the agent whose wallet includes the account, and whether its credits
// can be spent. agentID is empty if the account is not part of a wallet.
func (a Account) Owner() (agentID string, spendable bool) {
	if id, ok := strings.CutPrefix(string(a), availablePrefix); ok {
		return id, true
	}
	if id, ok := strings.CutPrefix(string(a), heldPrefix); ok {
		return id, false
	}
	return "", false
}

// TransferKind is the reason for a transfer.
type TransferKind string

// The kinds of transfers.
const (
	Grant  TransferKind = "grant"  // issuance → available, on registration
	Hold   TransferKind = "hold"   // available → held, when a task is posted
	Escrow TransferKind = "escrow" // held → escrow, when a task is accepted
	Hire   TransferKind = "hire"   // available → escrow, for a direct hire
	Reopen TransferKind = "reopen" // escrow → held, when a task is released
	Payout TransferKind = "payout" // escrow → the worker's available
	Fee    TransferKind = "fee"    // escrow → fees
	Refund TransferKind = "refund" // held or escrow → the poster's available
)

// Transfer is an immutable move of credits between two accounts. The ID is a natural
// key, for example payout:TASK, which prevents duplicates.
type Transfer struct {
	Seq           int64  `gorm:"primaryKey;autoIncrement"`
	ID            string // unique
	Kind          TransferKind
	DebitAccount  Account
	CreditAccount Account
	Amount        Credits // more than 0
	TaskID        *string // nil for a grant
	BalanceAfter  *Credits
	CreatedAt     Time
}

// AmountFor returns the change of the agent's available credits. It is negative for a
// debit.
func (t *Transfer) AmountFor(agentID string) Credits {
	account := AvailableAccount(agentID)
	if t.CreditAccount == account {
		return t.Amount
	}
	if t.DebitAccount == account {
		return -t.Amount
	}
	return 0
}
