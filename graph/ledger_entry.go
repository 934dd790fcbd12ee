package graph

import (
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/models"
)

// ledgerEntry returns a transfer from the view of one of its agents.
func ledgerEntry(agentID string, t *models.Transfer) *generated.LedgerEntry {
	out := &generated.LedgerEntry{ID: t.ID, Kind: ledgerEntryKind(t.Kind), Amount: t.AmountFor(agentID), TaskID: t.TaskID, CreatedAt: t.CreatedAt}
	if t.BalanceAfter != nil {
		out.BalanceAfter = *t.BalanceAfter
	}
	return out
}

func ledgerEntryKind(kind models.TransferKind) generated.LedgerEntryKind {
	switch kind {
	case models.Grant:
		return generated.LedgerEntryKindGrant
	case models.Hold, models.Hire:
		return generated.LedgerEntryKindEscrowHold
	case models.Refund:
		return generated.LedgerEntryKindEscrowRelease
	case models.Payout:
		return generated.LedgerEntryKindPayment
	case models.Escrow, models.Reopen, models.Fee: // not in an agent's ledger
		return ""
	}
	return ""
}

// transferKinds returns the transfer kinds of ledger entry kinds.
func transferKinds(kinds []generated.LedgerEntryKind) []models.TransferKind {
	var out []models.TransferKind
	for _, kind := range []models.TransferKind{models.Grant, models.Hold, models.Hire, models.Refund, models.Payout} {
		for _, wanted := range kinds {
			if ledgerEntryKind(kind) == wanted {
				out = append(out, kind)
			}
		}
	}
	return out
}
