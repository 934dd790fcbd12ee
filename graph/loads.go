package graph

import (
	"context"
	"slices"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/models"
)

// loads is what the resolvers of one query load by id. A page announces what
// its items refer to; when the first of it is asked for, all of it is loaded
// with one statement. So a list takes as many statements as one item, as edges
// or as nodes and at any depth.
//
// It lives as long as the query. Mutations and subscriptions have none that
// lasts: what they read must not be older than what they did or heard.
type loads struct {
	agents   batch[models.Agent]
	tasks    batch[models.Task]
	attempts batch[[]*models.Attempt]
}

type loadsKey struct{}

func withLoads(ctx context.Context) context.Context {
	return context.WithValue(ctx, loadsKey{}, &loads{})
}

// loadsOf returns the loads of a query, fresh ones outside of any.
func loadsOf(ctx context.Context) *loads {
	if l, ok := ctx.Value(loadsKey{}).(*loads); ok {
		return l
	}
	return &loads{}
}

// announceTasks announces the agents of tasks.
func (l *loads) announceTasks(tasks []models.Task) {
	for i := range tasks {
		l.agents.announce(&tasks[i].PosterID, tasks[i].WorkerID)
	}
}

// batch is objects of one kind by their ids. It is safe for concurrent use.
type batch[T any] struct {
	mu        sync.Mutex
	announced []string      // may repeat
	loaded    map[string]*T // nil for an id that is not there
}

// announce notes ids that are likely to be asked for; nil ones are passed over.
func (b *batch[T]) announce(ids ...*string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(ids)
}

func (b *batch[T]) note(ids []*string) {
	for _, id := range ids {
		if b.missing(id) {
			b.announced = append(b.announced, *id)
		}
	}
}

// get returns the objects with these ids in their order, nil for a nil id and
// for one that is not there. Those that are missing are loaded with all that
// was announced; who asks meanwhile waits for it.
func (b *batch[T]) get(ids []*string, load func(ids []string) (map[string]*T, error)) ([]*T, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.ContainsFunc(ids, b.missing) {
		b.note(ids)
		slices.Sort(b.announced)
		b.announced = slices.Compact(b.announced)
		found, err := load(b.announced)
		if err != nil {
			return nil, err
		}
		if b.loaded == nil {
			b.loaded = make(map[string]*T, len(b.announced))
		}
		for _, id := range b.announced {
			b.loaded[id] = found[id]
		}
		b.announced = nil
	}
	out := make([]*T, len(ids))
	for i, id := range ids {
		if id != nil {
			out[i] = b.loaded[*id]
		}
	}
	return out, nil
}

func (b *batch[T]) missing(id *string) bool {
	if id == nil {
		return false
	}
	_, known := b.loaded[*id]
	return !known
}

// agentsOf loads the agents with these ids, in their order. A nil id stays nil.
func (r *Resolver) agentsOf(ctx context.Context, ids []*string) ([]*models.Agent, error) {
	return loadsOf(ctx).agents.get(ids, func(ids []string) (map[string]*models.Agent, error) {
		agents, err := r.Market.Agents(ctx, ids)
		return byID(agents, func(a *models.Agent) string { return a.ID }), err
	})
}

// agentsOfTasks is agentsOf for agents that are known to be there. Whoever asks
// for nothing but their ids has them already.
func (r *Resolver) agentsOfTasks(ctx context.Context, ids []*string) ([]*models.Agent, error) {
	for _, field := range graphql.CollectFieldsCtx(ctx, nil) {
		if field.Name != "id" && field.Name != "__typename" {
			return r.agentsOf(ctx, ids)
		}
	}
	agents := make([]*models.Agent, len(ids))
	for i, id := range ids {
		if id != nil {
			agents[i] = &models.Agent{ID: *id}
		}
	}
	return agents, nil
}

// tasksOf loads the tasks with these ids, in their order. A nil id stays nil.
func (r *Resolver) tasksOf(ctx context.Context, ids []*string) ([]*models.Task, error) {
	l := loadsOf(ctx)
	return l.tasks.get(ids, func(ids []string) (map[string]*models.Task, error) {
		tasks, err := r.Market.Tasks(ctx, ids)
		l.announceTasks(tasks)
		return byID(tasks, func(t *models.Task) string { return t.ID }), err
	})
}

// attemptsOf loads the tries of a delivery, first to last.
func (r *Resolver) attemptsOf(ctx context.Context, deliveryID string) ([]*models.Attempt, error) {
	tries, err := loadsOf(ctx).attempts.get([]*string{&deliveryID}, func(ids []string) (map[string]*[]*models.Attempt, error) {
		attempts, err := r.Webhooks.Attempts(ctx, ids...)
		byDelivery := make(map[string]*[]*models.Attempt, len(ids))
		for i := range attempts {
			of := byDelivery[attempts[i].DeliveryID]
			if of == nil {
				of = new([]*models.Attempt)
				byDelivery[attempts[i].DeliveryID] = of
			}
			*of = append(*of, &attempts[i])
		}
		return byDelivery, err
	})
	if err != nil || tries[0] == nil {
		return []*models.Attempt{}, err
	}
	return *tries[0], nil
}

func byID[T any](found []T, id func(*T) string) map[string]*T {
	out := make(map[string]*T, len(found))
	for i := range found {
		out[id(&found[i])] = &found[i]
	}
	return out
}

// ids returns what each object refers to.
func ids[T any](objects []T, ref func(T) *string) []*string {
	out := make([]*string, len(objects))
	for i, object := range objects {
		out[i] = ref(object)
	}
	return out
}
