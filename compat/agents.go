package compat

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// registerRequest is a registration.
type registerRequest struct {
	Name         string          `json:"name" minLength:"1" maxLength:"100" doc:"Names are not unique."`
	Description  *string         `json:"description,omitempty" maxLength:"2000"`
	Capabilities []string        `json:"capabilities,omitempty" nullable:"false" maxItems:"50" doc:"What the agent can do. Stored in lower case (Unicode case folding)."`
	PricePerTask *models.Credits `json:"price_per_task,omitempty" minimum:"1" maximum:"1000000000" default:"10" doc:"Minimum price of a direct execution."`
	EndpointURL  *string         `json:"endpoint_url,omitempty" format:"uri" doc:"Endpoint that runs direct executions. Must start with https://."`
	SystemPrompt *string         `json:"system_prompt,omitempty" maxLength:"20000" doc:"System prompt for direct executions by a language model, instead of an endpoint."`
	WebhookURL   *string         `json:"webhook_url,omitempty" format:"uri" doc:"Webhook for notifications. Must start with https://."`
	OwnerEmail   *string         `json:"owner_email,omitempty" format:"email" doc:"Not visible to other agents."`
}

// registrationResponse is a new agent and its API key.
type registrationResponse struct {
	ID            string   `json:"id" format:"uuid"`
	Name          string   `json:"name"`
	APIKey        string   `json:"api_key" doc:"Returned only once."`
	Capabilities  []string `json:"capabilities" nullable:"false"`
	WebhookSecret *string  `json:"webhook_secret,omitempty" doc:"Secret that signs requests to the agent. Returned only once, if the agent has a webhook or an endpoint."`
}

func (h *handler) registerAgent(ctx context.Context, c *call, in registerRequest) (registrationResponse, error) {
	input := market.RegisterAgentInput{
		Name: in.Name, Description: in.Description, Capabilities: in.Capabilities, EndpointURL: in.EndpointURL,
		SystemPrompt: in.SystemPrompt, WebhookURL: in.WebhookURL, OwnerEmail: in.OwnerEmail,
	}
	if in.PricePerTask != nil {
		if input.PricePerTask = *in.PricePerTask; input.PricePerTask == 0 { // the market takes 0 for the default
			return registrationResponse{}, models.FieldErrorf("price_per_task", "must be from 1 to %d credits", models.MaxBudget)
		}
	}
	out, err := h.resolver.Mutation().RegisterAgent(ctx, input)
	if err != nil {
		return registrationResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return registrationResponse{
		ID: out.Agent.ID, Name: out.Agent.Name, APIKey: out.APIKey, Capabilities: out.Agent.Capabilities, WebhookSecret: out.WebhookSecret,
	}, nil
}

// agentResponse is the public profile of an agent.
type agentResponse struct {
	ID              string         `json:"id" format:"uuid"`
	Name            string         `json:"name"`
	Description     string         `json:"description"`
	Capabilities    []string       `json:"capabilities" nullable:"false"`
	PricePerTask    models.Credits `json:"price_per_task"`
	ReputationScore float64        `json:"reputation_score" minimum:"0" maximum:"5" doc:"Average rating; 0 without ratings."`
	TotalTasks      int            `json:"total_tasks" minimum:"0" doc:"Number of tasks completed as worker."`
	CreatedAt       models.Time    `json:"created_at"`
}

func publicAgent(a *models.Agent) agentResponse {
	out := agentResponse{
		ID: a.ID, Name: a.Name, Description: a.Description, Capabilities: a.Capabilities,
		PricePerTask: a.PricePerTask, TotalTasks: a.CompletedCount, CreatedAt: a.CreatedAt,
	}
	if score := a.ReputationScore(); score != nil {
		out.ReputationScore = *score
	}
	return out
}

func (h *handler) listAgents(ctx context.Context, c *call, _ noBody) ([]agentResponse, error) {
	params, err := c.listParams()
	if err != nil {
		return nil, err
	}
	page, err := h.resolver.Query().Agents(ctx, params.first, params.after, &generated.AgentFilter{Capability: graphql.OmittableOf(params.capability)}, nil)
	if err != nil {
		return nil, err
	}
	c.setNextLink(params, page.PageInfo)
	agents := make([]agentResponse, len(page.Nodes))
	for i, agent := range page.Nodes {
		agents[i] = publicAgent(agent)
	}
	return agents, nil
}

func (h *handler) getAgent(ctx context.Context, c *call, _ noBody) (agentResponse, error) {
	agent, err := h.resolver.Query().Agent(ctx, c.id())
	if err != nil {
		return agentResponse{}, err
	}
	return publicAgent(agent), nil
}

// ownAgentResponse is an agent's own profile.
type ownAgentResponse struct {
	agentResponse

	OwnerEmail   *string `json:"owner_email"`
	SystemPrompt *string `json:"system_prompt"`
	EndpointURL  *string `json:"endpoint_url"`
	WebhookURL   *string `json:"webhook_url" doc:"The masked URL."`
}

func (h *handler) getMe(ctx context.Context, _ *call, _ noBody) (ownAgentResponse, error) {
	viewer, err := h.viewer(ctx)
	if err != nil {
		return ownAgentResponse{}, err
	}
	webhook, err := h.resolver.Viewer().Webhook(ctx, viewer)
	if err != nil {
		return ownAgentResponse{}, err
	}
	return ownAgentResponse{
		agentResponse: publicAgent(viewer.Agent), OwnerEmail: viewer.OwnerEmail, SystemPrompt: viewer.SystemPrompt,
		EndpointURL: viewer.EndpointURL, WebhookURL: maskedURL(webhook),
	}, nil
}

// viewer returns the calling agent.
func (h *handler) viewer(ctx context.Context) (*generated.Viewer, error) {
	if _, err := auth.Require(ctx); err != nil {
		return nil, err
	}
	return h.resolver.Query().Viewer(ctx)
}
