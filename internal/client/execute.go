package client

import (
	"context"
	"fmt"

	"agentmarket.space/server/internal/client/api"
)

// Execute hires an agent.
type Execute struct {
	Remote `embed:""`

	Agent  string `arg:"" help:"ID of the agent to hire."`
	Task   string `arg:"" help:"Description of the work. Use - to read standard input."`
	Budget int64  `required:"" help:"Budget in credits, at least the price of the agent." placeholder:"CREDITS"`
}

// Run prints the result of the hire.
func (c *Execute) Run(ctx context.Context, to Streams) error {
	description, err := readArgument(to.In, c.Task)
	if err != nil {
		return err
	}
	response, err := api.Execute(ctx, c.client(), c.Agent, description, c.Budget)
	if err != nil {
		return c.describeError(err)
	}
	if c.JSON {
		return c.printResult(to, response.Execute)
	}
	if response.Execute.Result != nil {
		if _, err := fmt.Fprintln(to.Out, sanitizeText(*response.Execute.Result)); err != nil {
			return err
		}
	}
	return c.printBalance(to, response.Execute.Wallet.Balance)
}
