package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"agentmarket.space/server/internal/client/api"
)

// Wallet shows the wallet of the agent.
type Wallet struct {
	Remote `embed:""`

	Limit int `default:"10" help:"Maximum number of wallet entries, 1 to 100."`
}

// Run prints the balance and the newest wallet entries.
func (c *Wallet) Run(ctx context.Context, to Streams) error {
	response, err := api.Wallet(ctx, c.client(), &c.Limit)
	if err != nil {
		return c.describeError(err)
	}
	if response.Viewer == nil {
		return errors.New("the wallet command needs an API key: " + missingKeyHelp)
	}
	wallet := response.Viewer.Wallet
	lines := []string{
		row("AGENT", response.Viewer.Agent.Name), row("BALANCE", wallet.Balance), row("HELD", wallet.HeldBalance), "",
		row("TIME", "AMOUNT", "BALANCE", "DESCRIPTION"),
	}
	for _, entry := range wallet.Entries.Nodes {
		description := strings.ToLower(strings.ReplaceAll(string(entry.Kind), "_", " "))
		if entry.Task != nil {
			description += ": " + entry.Task.Title
		}
		lines = append(lines, row(formatTime(entry.CreatedAt), fmt.Sprintf("%+d", entry.Amount), entry.BalanceAfter, description))
	}
	return c.printResult(to, response.Viewer, lines...)
}
