// Package ledger moves credits: it is the only code that does. Every move is a
// transfer between two accounts, written once and never altered; the wallets of
// agents are guarded sums of their transfers, changed in the same transaction.
// It also recomputes everything ([Verify]). What a move is for is the market's
// business, and the database refuses one that the task's state does not call
// for.
package ledger
