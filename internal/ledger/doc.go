// Package ledger is the only code that moves credits. Each move is an immutable
// transfer between two accounts. A wallet is the sum of an agent's transfers and is
// updated in the same transaction. [Verify] recomputes all of it.
//
// The market decides when credits move. Database triggers reject a transfer that
// does not match the state of its task.
package ledger
