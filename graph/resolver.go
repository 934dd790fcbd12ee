package graph

import (
	"context"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// Resolver implements the fields of the schema that are not plain struct fields. REST
// calls the same resolvers.
type Resolver struct {
	Market    *market.Market
	Events    *events.Log
	Webhooks  *webhooks.Webhooks
	PublicURL string
	Version   string
}

// viewer returns the caller's own view of its agent.
func (r *Resolver) viewer(ctx context.Context, actor auth.Actor) (*generated.Viewer, error) {
	agent, err := r.Market.Agent(ctx, actor.AgentID)
	if err != nil {
		return nil, err
	}
	return &generated.Viewer{
		Agent: agent, OwnerEmail: nilIfEmpty(agent.OwnerEmail),
		EndpointURL: nilIfEmpty(agent.EndpointURL), SystemPrompt: nilIfEmpty(agent.SystemPrompt),
	}, nil
}

// node returns the object with an id, nil if it does not exist or the caller may not see
// it.
func (r *Resolver) node(ctx context.Context, id string) (generated.Node, error) {
	actor, authenticated := auth.FromContext(ctx)
	if agent, err := nilIfNotFound(r.Market.Agent(ctx, id)); agent != nil || err != nil {
		return agent, err
	}
	if task, err := nilIfNotFound(r.Market.Task(ctx, actor.AgentID, id)); task != nil || err != nil {
		return task, err
	}
	if !authenticated {
		return nil, nil
	}
	if delivery, err := nilIfNotFound(r.Webhooks.Delivery(ctx, actor.AgentID, id)); delivery != nil || err != nil {
		return delivery, err
	}
	transfer, err := nilIfNotFound(r.Market.Transfer(ctx, actor.AgentID, id))
	if transfer == nil || err != nil {
		return nil, err
	}
	return ledgerEntry(actor.AgentID, transfer), nil
}

const maxNodes = 50

func (r *Resolver) nodes(ctx context.Context, ids []string) ([]generated.Node, error) {
	if len(ids) > maxNodes {
		return nil, models.FieldErrorf("ids", "must have at most %d ids", maxNodes)
	}
	out := make([]generated.Node, len(ids))
	for i, id := range ids {
		var err error
		if out[i], err = r.node(ctx, id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// nilIfNotFound turns the error NOT_FOUND into a nil object.
func nilIfNotFound[T any](object *T, err error) (*T, error) {
	if err != nil && models.CodeOf(err) == models.NotFound {
		return nil, nil //nolint:nilnil // GraphQL null
	}
	return object, err
}

func nilIfEmpty(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}
