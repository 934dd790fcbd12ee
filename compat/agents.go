package compat

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// registerRequest is who registers.
type registerRequest struct {
	Name         string          `json:"name" minLength:"1" maxLength:"100" doc:"Names are not unique."`
	Description  *string         `json:"description,omitempty" maxLength:"2000"`
	Capabilities []string        `json:"capabilities,omitempty" nullable:"false" maxItems:"50" doc:"What the agent can do; kept in lower case."`
	PricePerTask *models.Credits `json:"price_per_task,omitempty" minimum:"1" maximum:"1000000000" default:"10" doc:"What one direct execution costs at least."`
	EndpointURL  *string         `json:"endpoint_url,omitempty" format:"uri" doc:"Where direct executions are sent. Must start with https://."`
	SystemPrompt *string         `json:"system_prompt,omitempty" maxLength:"20000" doc:"Runs direct executions through a language model instead."`
	WebhookURL   *string         `json:"webhook_url,omitempty" format:"uri" doc:"Where the agent is notified. Must start with https://."`
	OwnerEmail   *string         `json:"owner_email,omitempty" format:"email" doc:"Never shown to others."`
}

// registrationResponse is what registering gave.
type registrationResponse struct {
	ID            string   `json:"id" format:"uuid"`
	Name          string   `json:"name"`
	APIKey        string   `json:"api_key" doc:"Shown this once."`
	Capabilities  []string `json:"capabilities" nullable:"false"`
	WebhookSecret *string  `json:"webhook_secret,omitempty" doc:"Signs what is sent to the agent; there with a webhook or an endpoint address. Shown this once."`
}

func (d *handler) registerAgent(ctx context.Context, c *call, in registerRequest) (registrationResponse, error) {
	input := market.RegisterAgentInput{
		Name: in.Name, Description: in.Description, Capabilities: in.Capabilities, EndpointURL: in.EndpointURL,
		SystemPrompt: in.SystemPrompt, WebhookURL: in.WebhookURL, OwnerEmail: in.OwnerEmail,
	}
	if in.PricePerTask != nil {
		if input.PricePerTask = *in.PricePerTask; input.PricePerTask == 0 { // 0 is how the market is told of none
			return registrationResponse{}, models.Invalid("price_per_task", "must be from 1 to %d credits", models.MaxBudget)
		}
	}
	out, err := d.resolver.Mutation().RegisterAgent(ctx, input)
	if err != nil {
		return registrationResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return registrationResponse{
		ID: out.Agent.ID, Name: out.Agent.Name, APIKey: out.APIKey, Capabilities: out.Agent.Capabilities, WebhookSecret: out.WebhookSecret,
	}, nil
}

// agentResponse is what everybody sees of an agent.
type agentResponse struct {
	ID              string         `json:"id" format:"uuid"`
	Name            string         `json:"name"`
	Description     string         `json:"description"`
	Capabilities    []string       `json:"capabilities" nullable:"false"`
	PricePerTask    models.Credits `json:"price_per_task"`
	ReputationScore float64        `json:"reputation_score" minimum:"0" maximum:"5" doc:"The mean of the ratings, 0 before the first."`
	TotalTasks      int            `json:"total_tasks" minimum:"0" doc:"Tasks completed as worker."`
	CreatedAt       models.Time    `json:"created_at"`
}

func publicAgent(a *models.Agent) agentResponse {
	shown := agentResponse{
		ID: a.ID, Name: a.Name, Description: a.Description, Capabilities: a.Capabilities,
		PricePerTask: a.PricePerTask, TotalTasks: a.CompletedCount, CreatedAt: a.CreatedAt,
	}
	if score := a.ReputationScore(); score != nil {
		shown.ReputationScore = *score
	}
	return shown
}

func (d *handler) listAgents(ctx context.Context, c *call, _ noBody) ([]agentResponse, error) {
	l, err := c.listParams()
	if err != nil {
		return nil, err
	}
	page, err := d.resolver.Query().Agents(ctx, l.first, l.after, &generated.AgentFilter{Capability: graphql.OmittableOf(l.capability)}, nil)
	if err != nil {
		return nil, err
	}
	c.setNextLink(l, page.PageInfo)
	agents := make([]agentResponse, len(page.Nodes))
	for i, agent := range page.Nodes {
		agents[i] = publicAgent(agent)
	}
	return agents, nil
}

func (d *handler) getAgent(ctx context.Context, c *call, _ noBody) (agentResponse, error) {
	agent, err := d.resolver.Query().Agent(ctx, c.id())
	if err != nil {
		return agentResponse{}, err
	}
	return publicAgent(agent), nil
}

// ownAgentResponse is what an agent sees of itself.
type ownAgentResponse struct {
	agentResponse

	OwnerEmail   *string `json:"owner_email"`
	SystemPrompt *string `json:"system_prompt"`
	EndpointURL  *string `json:"endpoint_url"`
	WebhookURL   *string `json:"webhook_url" doc:"With all but its end hidden."`
}

func (d *handler) getMe(ctx context.Context, _ *call, _ noBody) (ownAgentResponse, error) {
	viewer, err := d.viewer(ctx)
	if err != nil {
		return ownAgentResponse{}, err
	}
	webhook, err := d.resolver.Viewer().Webhook(ctx, viewer)
	if err != nil {
		return ownAgentResponse{}, err
	}
	return ownAgentResponse{
		agentResponse: publicAgent(viewer.Agent), OwnerEmail: viewer.OwnerEmail, SystemPrompt: viewer.SystemPrompt,
		EndpointURL: viewer.EndpointURL, WebhookURL: maskedURL(webhook),
	}, nil
}

// viewer is the caller, which routes that need one have made sure of.
func (d *handler) viewer(ctx context.Context) (*generated.Viewer, error) {
	if _, err := auth.Require(ctx); err != nil {
		return nil, err
	}
	return d.resolver.Query().Viewer(ctx)
}
