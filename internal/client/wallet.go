package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"agentmarket.space/server/internal/client/api"
)

// Wallet shows credits.
type Wallet struct {
	Remote `embed:""`

	Limit int `default:"10" help:"How many entries to show, 1 to 100."`
}

// Run prints what the agent has, and the newest entries.
func (c *Wallet) Run(ctx context.Context, to Streams) error {
	answer, err := api.Wallet(ctx, c.client(), &c.Limit)
	if err != nil {
		return c.describeError(err)
	}
	if answer.Viewer == nil {
		return errors.New("a wallet is an agent's: give --key or AGENTMARKET_API_KEY; 'agentmarket register NAME' makes one")
	}
	wallet := answer.Viewer.Wallet
	lines := []string{
		row("AGENT", answer.Viewer.Agent.Name), row("BALANCE", wallet.Balance), row("SET ASIDE", wallet.HeldBalance), "",
		row("WHEN", "AMOUNT", "BALANCE", "FOR"),
	}
	for _, entry := range wallet.Entries.Nodes {
		about := strings.ToLower(strings.ReplaceAll(string(entry.Kind), "_", " "))
		if entry.Task != nil {
			about += ": " + entry.Task.Title
		}
		lines = append(lines, row(formatTime(entry.CreatedAt), fmt.Sprintf("%+d", entry.Amount), entry.BalanceAfter, about))
	}
	return c.printResult(to, answer.Viewer, lines...)
}

// Execute hires an agent.
type Execute struct {
	Remote `embed:""`

	Agent  string `arg:"" help:"Id of the agent to hire."`
	Task   string `arg:"" help:"What it is to do; - reads it from the standard input."`
	Budget int64  `required:"" help:"Credits to pay; at least the agent's price."`
}

// Run prints the result.
func (c *Execute) Run(ctx context.Context, to Streams) error {
	work, err := readArgument(to.In, c.Task)
	if err != nil {
		return err
	}
	answer, err := api.Execute(ctx, c.client(), c.Agent, work, c.Budget)
	if err != nil {
		return c.describeError(err)
	}
	if c.JSON {
		return c.printResult(to, answer.Execute)
	}
	if answer.Execute.Result != nil {
		if _, err := fmt.Fprintln(to.Out, sanitizeText(*answer.Execute.Result)); err != nil {
			return err
		}
	}
	return c.printBalance(to, answer.Execute.Wallet.Balance)
}
