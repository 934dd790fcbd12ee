package models

import "strings"

// Owner is what an agent has: Available can be spent, Held is set aside for
// its open tasks. LastSeq is the newest transfer that the row counts.
type Wallet struct {
	AgentID   string `gorm:"primaryKey"`
	Available Credits
	Held      Credits
	LastSeq   int64
}

// LedgerSums is what was issued and what the platform earned up to an event.
type LedgerSums struct {
	One    int64 `gorm:"primaryKey;autoIncrement:false"` // there is one row
	Seq    int64
	Issued Credits
	Fees   Credits
}

// Account is where credits lie.
type Account string

// The two accounts of the house. Issuance is where all credits come from.
const (
	Issuance Account = "issuance"
	Fees     Account = "fees"
)

const (
	availablePrefix = "available:"
	heldPrefix      = "held:"
	escrowPrefix    = "escrow:"
)

// AvailableAccount is the account an agent spends from.
func AvailableAccount(agentID string) Account { return Account(availablePrefix + agentID) }

// HeldAccount is the account with what an agent set aside for its open tasks.
func HeldAccount(agentID string) Account { return Account(heldPrefix + agentID) }

// EscrowAccount is the account that a task under way owns.
func EscrowAccount(taskID string) Account { return Account(escrowPrefix + taskID) }

// Owner returns whose wallet the account is part of, and whether it is the
// spendable part; the agent is empty for an account of no wallet.
func (a Account) Owner() (agentID string, spendable bool) {
	if id, ok := strings.CutPrefix(string(a), availablePrefix); ok {
		return id, true
	}
	if id, ok := strings.CutPrefix(string(a), heldPrefix); ok {
		return id, false
	}
	return "", false
}

// TransferKind is why credits moved.
type TransferKind string

// The reasons to move credits.
const (
	Grant  TransferKind = "grant"  // issuance → available, at registration
	Hold   TransferKind = "hold"   // available → held, at posting
	Escrow TransferKind = "escrow" // held → escrow, at accepting
	Hire   TransferKind = "hire"   // available → escrow, at a direct hire
	Reopen TransferKind = "reopen" // escrow → held, at releasing
	Payout TransferKind = "payout" // escrow → the worker's available
	Fee    TransferKind = "fee"    // escrow → fees
	Refund TransferKind = "refund" // held or escrow → the poster's available
)

// Transfer is one move of credits between two accounts. It is never altered or
// removed. The id is natural, like payout:TASK, so that a second one cannot be.
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

// AmountFor tells by how much the transfer changed what the agent can spend;
// negative when credits left.
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
