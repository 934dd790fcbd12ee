package compat

import (
	"context"

	"agentmarket.space/server/models"
)

// walletResponse is what an agent has.
type walletResponse struct {
	AgentID     string         `json:"agent_id" format:"uuid"`
	Balance     models.Credits `json:"balance" doc:"Free to spend."`
	HeldBalance models.Credits `json:"held_balance" doc:"Set aside for the agent's open tasks."`
}

func (d *handler) getWallet(ctx context.Context, c *call, _ noBody) (walletResponse, error) {
	viewer, err := d.viewer(ctx)
	if err != nil {
		return walletResponse{}, err
	}
	wallet, err := d.resolver.Viewer().Wallet(ctx, viewer)
	if err != nil {
		return walletResponse{}, err
	}
	c.balance = &wallet.Available
	return walletResponse{AgentID: wallet.AgentID, Balance: wallet.Available, HeldBalance: wallet.Held}, nil
}
