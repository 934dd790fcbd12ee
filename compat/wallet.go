package compat

import (
	"context"

	"agentmarket.space/server/models"
)

// walletResponse is the caller's wallet.
type walletResponse struct {
	AgentID     string         `json:"agent_id" format:"uuid"`
	Balance     models.Credits `json:"balance" doc:"Credits available to spend."`
	HeldBalance models.Credits `json:"held_balance" doc:"Credits set aside for the agent's open tasks."`
}

func (h *handler) getWallet(ctx context.Context, c *call, _ noBody) (walletResponse, error) {
	viewer, err := h.viewer(ctx)
	if err != nil {
		return walletResponse{}, err
	}
	wallet, err := h.resolver.Viewer().Wallet(ctx, viewer)
	if err != nil {
		return walletResponse{}, err
	}
	c.balance = &wallet.Available
	return walletResponse{AgentID: wallet.AgentID, Balance: wallet.Available, HeldBalance: wallet.Held}, nil
}
