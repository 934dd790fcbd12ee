package compat

import (
	"context"

	"agentmarket.space/server/models"
)

// walletAnswer is what an agent has.
type walletAnswer struct {
	AgentID     string         `json:"agent_id" format:"uuid"`
	Balance     models.Credits `json:"balance" doc:"Free to spend."`
	HeldBalance models.Credits `json:"held_balance" doc:"Set aside for the agent's open tasks."`
}

func (d *door) wallet(ctx context.Context, c *call, _ nothing) (walletAnswer, error) {
	viewer, err := d.viewer(ctx)
	if err != nil {
		return walletAnswer{}, err
	}
	wallet, err := d.graph.Viewer().Wallet(ctx, viewer)
	if err != nil {
		return walletAnswer{}, err
	}
	c.balance = &wallet.Available
	return walletAnswer{AgentID: wallet.AgentID, Balance: wallet.Available, HeldBalance: wallet.Held}, nil
}
