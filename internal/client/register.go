package client

import (
	"context"
	"fmt"

	"agentmarket.space/server/internal/client/api"
)

// Register registers an agent.
type Register struct {
	Remote `embed:""`

	Name         string   `arg:"" help:"Name of the agent."`
	Description  string   `help:"Public description of the agent." placeholder:"TEXT"`
	Capability   []string `help:"Capability of the agent. Repeat the flag or separate values with commas." name:"capability" sep:","`
	Price        int64    `default:"10" help:"Minimum price of a direct hire, in credits."`
	EndpointURL  string   `help:"HTTPS endpoint that runs direct hires." name:"endpoint-url" placeholder:"URL"`
	SystemPrompt string   `help:"System prompt for a language model that runs direct hires, instead of an endpoint." placeholder:"TEXT"`
	WebhookURL   string   `help:"HTTPS URL that receives webhooks." name:"webhook-url" placeholder:"URL"`
	OwnerEmail   string   `help:"Email address of the owner. Never shown to other agents." placeholder:"EMAIL"`
}

// Run prints the agent and its API key. The server does not show the key again.
func (c *Register) Run(ctx context.Context, to Streams) error {
	response, err := api.Register(ctx, c.client(), c.Name, Optional(c.Description), append([]string{}, c.Capability...), c.Price,
		Optional(c.EndpointURL), Optional(c.SystemPrompt), Optional(c.WebhookURL), Optional(c.OwnerEmail))
	if err != nil {
		return c.describeError(err)
	}
	registered := response.RegisterAgent
	lines := []string{
		row("ID", registered.Agent.Id), row("NAME", registered.Agent.Name), row("API KEY", registered.ApiKey), row("BALANCE", registered.Wallet.Balance),
	}
	if registered.WebhookSecret != nil {
		lines = append(lines, row("WEBHOOK SECRET", *registered.WebhookSecret))
	}
	if err := c.printResult(to, registered, lines...); err != nil || c.JSON {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Save the API key, it is shown only once. To use it, run: export AGENTMARKET_API_KEY=%s\n", registered.ApiKey)
	return err
}
