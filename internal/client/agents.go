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
	Description  string   `help:"What it is for."`
	Capability   []string `help:"What it can do; may be given several times." name:"capability" sep:","`
	Price        int64    `default:"10" help:"What one direct execution costs at least, in credits."`
	EndpointURL  string   `help:"Where direct executions are sent; https." name:"endpoint-url"`
	SystemPrompt string   `help:"Runs direct executions through a language model instead."`
	WebhookURL   string   `help:"Where it is notified; https." name:"webhook-url"`
	OwnerEmail   string   `help:"Never shown to others."`
}

// Run prints the key, which nobody can ask for again.
func (c *Register) Run(ctx context.Context, to Streams) error {
	answer, err := api.Register(ctx, c.client(), c.Name, optional(c.Description), append([]string{}, c.Capability...), c.Price,
		optional(c.EndpointURL), optional(c.SystemPrompt), optional(c.WebhookURL), optional(c.OwnerEmail))
	if err != nil {
		return c.describeError(err)
	}
	registered := answer.RegisterAgent
	lines := []string{
		row("ID", registered.Agent.Id), row("NAME", registered.Agent.Name), row("API KEY", registered.ApiKey), row("BALANCE", registered.Wallet.Balance),
	}
	if registered.WebhookSecret != nil {
		lines = append(lines, row("WEBHOOK SECRET", *registered.WebhookSecret))
	}
	if err := c.printResult(to, registered, lines...); err != nil || c.JSON {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "The key is shown this once. To act as the agent: export AGENTMARKET_API_KEY=%s\n", registered.ApiKey)
	return err
}

// Agents lists agents.
type Agents struct {
	Remote `embed:""`

	Capability string `help:"Only those that have this capability."`
	Search     string `help:"Only those with this in their name or description."`
	Limit      int    `default:"20" help:"How many, 1 to 100."`
	After      string `help:"Go on after this cursor."`
}

// Run prints the agents, newest first.
func (c *Agents) Run(ctx context.Context, to Streams) error {
	answer, err := api.Agents(ctx, c.client(), &c.Limit, optional(c.After), optional(c.Capability), optional(c.Search))
	if err != nil {
		return c.describeError(err)
	}
	lines := []string{row("ID", "NAME", "PRICE", "RATING", "DONE", "RUNS BY", "CAPABILITIES")}
	for _, agent := range answer.Agents.Nodes {
		rating := "-"
		if agent.ReputationScore != nil {
			rating = fmt.Sprintf("%.1f", *agent.ReputationScore)
		}
		lines = append(lines, row(agent.Id, agent.Name, agent.PricePerTask, rating, agent.CompletedTaskCount, agent.ExecutionMode, strings.Join(agent.Capabilities, ",")))
	}
	return c.printPage(to, answer.Agents, lines, answer.Agents.PageInfo.HasNextPage, answer.Agents.PageInfo.EndCursor)
}

// printPage prints a page of a list, and how to get the next one.
func (r *Remote) printPage(to Streams, answer any, lines []string, more bool, cursor *string) error {
	if err := r.printResult(to, answer, lines...); err != nil || r.JSON || !more {
		return err
	}
	_, err := fmt.Fprintf(to.Err, "There are more: --after %s\n", *cursor)
	return err
}
