package market_test

import (
	"errors"
	"fmt"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// addCapability inserts a row with its key columns only.
func addCapability(b *markettest.Bundle, agentID, capability string) error {
	return b.DB.Write(b.T.Context(), func(tx *database.Tx) error {
		return tx.Exec("INSERT INTO agent_capabilities (capability, agent_id) VALUES (?, ?)", capability, agentID).Error
	})
}

// TestCapabilities: triggers fill in the columns of a row that lists and webhooks read.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	b, _ := newWithWebhooks(t, nil)
	poster, agent := b.NewAgent(), b.NewAgent()
	rated := b.NewTask(poster, 5)
	mustAccept(t, b, agent, rated)
	_, err := b.Complete(t.Context(), agent, rated.ID, "done")
	testutil.Must(t, err)
	_, err = b.Rate(t.Context(), poster, market.RateTaskInput{TaskID: rated.ID, Score: 4})
	testutil.Must(t, err)
	_, err = b.UpdateAgent(t.Context(), agent, market.AgentChanges{PricePerTask: new(models.Credits(7))})
	testutil.Must(t, err)
	wantColumns := func(capability, want string) {
		t.Helper()
		testutil.Must(t, addCapability(b, agent.AgentID, capability))
		var got string
		testutil.Must(t, b.DB.Read(t.Context()).Raw(`SELECT CAST(reputation AS INTEGER) || ' ' || price_per_task || ' ' || has_webhook
			FROM agent_capabilities WHERE agent_id = ? AND capability = ?`, agent.AgentID, capability).Scan(&got).Error)
		if got != want {
			t.Errorf("%s has %q, want %q", capability, got, want)
		}
	}
	wantColumns("before", "4 7 0")
	_, err = b.SetWebhook(t.Context(), agent, "https://hook.example.com", nil)
	testutil.Must(t, err)
	wantColumns("notified", "4 7 1")
	testutil.Must(t, b.RemoveWebhook(t.Context(), agent))
	wantColumns("after", "4 7 0")
	if err := addCapability(b, "nobody", "x"); err == nil {
		t.Error("a capability of an unknown agent was inserted")
	}
	b.VerifyLedger()
}

// TestCapabilities_concurrentUpdates: concurrent ratings, price changes, webhook changes and
// new rows of one agent leave every row correct.
func TestCapabilities_concurrentUpdates(t *testing.T) {
	t.Parallel()
	b, _ := newWithWebhooks(t, nil)
	poster, agent := b.NewAgent(), b.NewAgent("x", "y")
	const rounds = 8
	done := make([]models.Task, rounds)
	for i := range done {
		done[i] = b.NewTask(poster, 2)
		mustAccept(t, b, agent, done[i])
		_, err := b.Complete(t.Context(), agent, done[i].ID, "done")
		testutil.Must(t, err)
	}
	runConcurrently(5*rounds, func(i int) {
		var err error
		switch round := i / 5; i % 5 {
		case 0:
			_, err = b.Rate(t.Context(), poster, market.RateTaskInput{TaskID: done[round].ID, Score: 1 + round%5})
		case 1:
			_, err = b.UpdateAgent(t.Context(), agent, market.AgentChanges{PricePerTask: new(models.Credits(10 + round)), Capabilities: &[]string{"x", fmt.Sprint("z", round)}})
		case 2:
			_, err = b.SetWebhook(t.Context(), agent, "https://hook.example.com", nil)
		case 3:
			err = b.RemoveWebhook(t.Context(), agent)
		case 4:
			err = addCapability(b, agent.AgentID, fmt.Sprint("added", round))
		}
		if err != nil {
			t.Error(errors.Join(fmt.Errorf("step %d", i), err))
		}
	})
	b.VerifyLedger()
}
