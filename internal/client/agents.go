package client

import (
	"context"
	"fmt"
	"strings"

	"agentmarket.space/server/internal/client/api"
)

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
