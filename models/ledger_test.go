package models_test

import (
	"testing"

	"agentmarket.space/server/models"
)

func TestAccount_Owner(t *testing.T) {
	t.Parallel()
	for account, want := range map[models.Account]struct {
		agentID   string
		spendable bool
	}{
		models.AvailableAccount("a"):     {"a", true},
		models.HeldAccount("a"):          {"a", false},
		models.AvailableAccount("held:"): {"held:", true},
		models.EscrowAccount("a"):        {},
		models.IssuanceAccount:           {},
		models.FeesAccount:               {},
		"":                               {},
	} {
		if agentID, spendable := account.Owner(); agentID != want.agentID || spendable != want.spendable {
			t.Errorf("the owner of %s is %q, spendable %t, want %+v", account, agentID, spendable, want)
		}
	}
}

// TestTransfer_AmountFor checks the change of available credits for each kind of
// transfer.
func TestTransfer_AmountFor(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		transfer       models.Transfer
		poster, worker models.Credits
	}{
		"a hold":    {models.Transfer{DebitAccount: models.AvailableAccount("poster"), CreditAccount: models.HeldAccount("poster"), Amount: 25}, -25, 0},
		"a hire":    {models.Transfer{DebitAccount: models.AvailableAccount("poster"), CreditAccount: models.EscrowAccount("task"), Amount: 25}, -25, 0},
		"an escrow": {models.Transfer{DebitAccount: models.HeldAccount("poster"), CreditAccount: models.EscrowAccount("task"), Amount: 25}, 0, 0},
		"a payout":  {models.Transfer{DebitAccount: models.EscrowAccount("task"), CreditAccount: models.AvailableAccount("worker"), Amount: 22}, 0, 22},
		"a fee":     {models.Transfer{DebitAccount: models.EscrowAccount("task"), CreditAccount: models.FeesAccount, Amount: 3}, 0, 0},
		"a refund":  {models.Transfer{DebitAccount: models.HeldAccount("poster"), CreditAccount: models.AvailableAccount("poster"), Amount: 25}, 25, 0},
	} {
		if poster, worker := row.transfer.AmountFor("poster"), row.transfer.AmountFor("worker"); poster != row.poster || worker != row.worker {
			t.Errorf("%s: %d for the poster and %d for the worker, want %d and %d", name, poster, worker, row.poster, row.worker)
		}
	}
}
