package graph

import (
	"context"
	"slices"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/events"
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/market"
	"agentmarket.space/server/models"
	"agentmarket.space/server/webhooks"
)

// Resolver answers every field of the schema that is not simply there. The
// REST door calls the same resolvers.
type Resolver struct {
	Market    *market.Market
	Events    *events.Log
	Webhooks  *webhooks.Webhooks
	PublicURL string
	Version   string
}

// viewer returns what the calling agent sees of itself.
func (r *Resolver) viewer(ctx context.Context, actor auth.Actor) (*generated.Viewer, error) {
	agent, err := r.Market.Agent(ctx, actor.AgentID)
	if err != nil {
		return nil, err
	}
	return &generated.Viewer{
		Agent: agent, OwnerEmail: textOrNull(agent.OwnerEmail),
		EndpointURL: textOrNull(agent.EndpointURL), SystemPrompt: textOrNull(agent.SystemPrompt),
	}, nil
}

// node finds any object that the caller may see; null when there is none.
func (r *Resolver) node(ctx context.Context, id string) (generated.Node, error) {
	actor, known := auth.FromContext(ctx)
	if agent, err := orNull(r.Market.Agent(ctx, id)); agent != nil || err != nil {
		return agent, err
	}
	if task, err := orNull(r.Market.Task(ctx, actor.AgentID, id)); task != nil || err != nil {
		return task, err
	}
	if !known {
		return nil, nil
	}
	if delivery, err := orNull(r.Webhooks.Delivery(ctx, actor.AgentID, id)); delivery != nil || err != nil {
		return delivery, err
	}
	transfer, err := orNull(r.Market.Transfer(ctx, actor.AgentID, id))
	if transfer == nil || err != nil {
		return nil, err
	}
	return entry(actor.AgentID, transfer), nil
}

const maxNodes = 50

func (r *Resolver) nodes(ctx context.Context, ids []string) ([]generated.Node, error) {
	if len(ids) > maxNodes {
		return nil, models.Invalid("ids", "must have at most %d ids", maxNodes)
	}
	found := make([]generated.Node, len(ids))
	for i, id := range ids {
		var err error
		if found[i], err = r.node(ctx, id); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// agentsOf loads the agents with these ids, in their order, with one query. A
// nil id stays nil.
func (r *Resolver) agentsOf(ctx context.Context, ids []*string) ([]*models.Agent, error) {
	agents, err := r.Market.Agents(ctx, distinct(ids))
	return inOrder(ids, agents, func(a *models.Agent) string { return a.ID }), err
}

// tasksOf loads the tasks with these ids, in their order, with one query. A nil
// id stays nil.
func (r *Resolver) tasksOf(ctx context.Context, ids []*string) ([]*models.Task, error) {
	tasks, err := r.Market.Tasks(ctx, distinct(ids))
	return inOrder(ids, tasks, func(t *models.Task) string { return t.ID }), err
}

// ids returns what each object refers to.
func ids[T any](objects []T, ref func(T) *string) []*string {
	out := make([]*string, len(objects))
	for i, object := range objects {
		out[i] = ref(object)
	}
	return out
}

func distinct(ids []*string) []string {
	var out []string
	for _, id := range ids {
		if id != nil && !slices.Contains(out, *id) {
			out = append(out, *id)
		}
	}
	return out
}

func inOrder[T any](ids []*string, found []T, id func(*T) string) []*T {
	byID := make(map[string]*T, len(found))
	for i := range found {
		byID[id(&found[i])] = &found[i]
	}
	out := make([]*T, len(ids))
	for i := range ids {
		if ids[i] != nil {
			out[i] = byID[*ids[i]]
		}
	}
	return out
}

// orNull makes a missing object a null one.
func orNull[T any](object *T, err error) (*T, error) {
	if err != nil && models.CodeOf(err) == models.NotFound {
		return nil, nil //nolint:nilnil // null is the answer
	}
	return object, err
}

func textOrNull(text string) *string {
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
