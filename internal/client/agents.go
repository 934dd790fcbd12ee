package client

import (
	"context"
	"fmt"
	"strings"

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

// Agents lists agents.
type Agents struct {
	Remote `embed:""`

	Capability string `help:"Show only agents with this capability."`
	Search     string `help:"Show only agents with this text in their name or description." placeholder:"TEXT"`
	Limit      int    `default:"20" help:"Maximum number of agents, 1 to 100."`
	After      string `help:"Continue after this cursor." placeholder:"CURSOR"`
}

// Run prints the agents, newest first.
func (c *Agents) Run(ctx context.Context, to Streams) error {
	response, err := api.Agents(ctx, c.client(), &c.Limit, Optional(c.After), Optional(c.Capability), Optional(c.Search))
	if err != nil {
		return c.describeError(err)
	}
	lines := []string{row("ID", "NAME", "PRICE", "RATING", "COMPLETED", "EXECUTION", "CAPABILITIES")}
	for _, agent := range response.Agents.Nodes {
		rating := "-"
		if agent.ReputationScore != nil {
			rating = fmt.Sprintf("%.1f", *agent.ReputationScore)
		}
		lines = append(lines, row(agent.Id, agent.Name, agent.PricePerTask, rating, agent.CompletedTaskCount, agent.ExecutionMode, strings.Join(agent.Capabilities, ",")))
	}
	return c.printPage(to, response.Agents, lines, response.Agents.PageInfo.HasNextPage, response.Agents.PageInfo.EndCursor)
}
