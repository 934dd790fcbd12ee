package graph

import (
	"context"
	"slices"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/models"
)

// loaders is what the resolvers of one query load by id. A page announces what
// its items refer to; when the first of it is asked for, all of it is loaded
// with one statement. So a list takes as many statements as one item, as edges
// or as nodes and at any depth.
//
// It lives as long as the query. Mutations and subscriptions have none that
// lasts: what they read must not be older than what they did or heard.
type loaders struct {
	agents   loader[models.Agent]
	tasks    loader[models.Task]
	attempts loader[[]*models.Attempt]
}

type loadersKey struct{}

func withLoaders(ctx context.Context) context.Context {
	return context.WithValue(ctx, loadersKey{}, &loaders{})
}

// loadersFrom returns the loads of a query, fresh ones outside of any.
func loadersFrom(ctx context.Context) *loaders {
	if l, ok := ctx.Value(loadersKey{}).(*loaders); ok {
		return l
	}
	return &loaders{}
}

// prefetchTaskAgents announces the agents of tasks.
func (l *loaders) prefetchTaskAgents(tasks []models.Task) {
	for i := range tasks {
		l.agents.prefetch(&tasks[i].PosterID, tasks[i].WorkerID)
	}
}

// loader is objects of one kind by their ids. It is safe for concurrent use.
type loader[T any] struct {
	mu     sync.Mutex
	queued []string      // may repeat
	loaded map[string]*T // nil for an id that is not there
}

// prefetch notes ids that are likely to be asked for; nil ones are passed over.
func (b *loader[T]) prefetch(ids ...*string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.enqueue(ids)
}

func (b *loader[T]) enqueue(ids []*string) {
	for _, id := range ids {
		if b.needsLoad(id) {
			b.queued = append(b.queued, *id)
		}
	}
}

// load returns the objects with these ids in their order, nil for a nil id and
// for one that is not there. Those that are missing are loaded with all that
// was announced; who asks meanwhile waits for it.
func (b *loader[T]) load(ids []*string, load func(ids []string) (map[string]*T, error)) ([]*T, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.ContainsFunc(ids, b.needsLoad) {
		b.enqueue(ids)
		slices.Sort(b.queued)
		b.queued = slices.Compact(b.queued)
		found, err := load(b.queued)
		if err != nil {
			return nil, err
		}
		if b.loaded == nil {
			b.loaded = make(map[string]*T, len(b.queued))
		}
		for _, id := range b.queued {
			b.loaded[id] = found[id]
		}
		b.queued = nil
	}
	out := make([]*T, len(ids))
	for i, id := range ids {
		if id != nil {
			out[i] = b.loaded[*id]
		}
	}
	return out, nil
}

func (b *loader[T]) needsLoad(id *string) bool {
	if id == nil {
		return false
	}
	_, known := b.loaded[*id]
	return !known
}

// loadAgents loads the agents with these ids, in their order. A nil id stays nil.
func (r *Resolver) loadAgents(ctx context.Context, ids []*string) ([]*models.Agent, error) {
	return loadersFrom(ctx).agents.load(ids, func(ids []string) (map[string]*models.Agent, error) {
		agents, err := r.Market.Agents(ctx, ids)
		return byID(agents, func(a *models.Agent) string { return a.ID }), err
	})
}

// loadTaskAgents is loadAgents for agents that are known to be there. Whoever asks
// for nothing but their ids has them already.
func (r *Resolver) loadTaskAgents(ctx context.Context, ids []*string) ([]*models.Agent, error) {
	for _, field := range graphql.CollectFieldsCtx(ctx, nil) {
		if field.Name != "id" && field.Name != "__typename" {
			return r.loadAgents(ctx, ids)
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

// loadTasks loads the tasks with these ids, in their order. A nil id stays nil.
func (r *Resolver) loadTasks(ctx context.Context, ids []*string) ([]*models.Task, error) {
	l := loadersFrom(ctx)
	return l.tasks.load(ids, func(ids []string) (map[string]*models.Task, error) {
		tasks, err := r.Market.Tasks(ctx, ids)
		l.prefetchTaskAgents(tasks)
		return byID(tasks, func(t *models.Task) string { return t.ID }), err
	})
}

// loadAttempts loads the tries of a delivery, first to last.
func (r *Resolver) loadAttempts(ctx context.Context, deliveryID string) ([]*models.Attempt, error) {
	tries, err := loadersFrom(ctx).attempts.load([]*string{&deliveryID}, func(ids []string) (map[string]*[]*models.Attempt, error) {
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

// collectIDs returns what each object refers to.
func collectIDs[T any](objects []T, ref func(T) *string) []*string {
	out := make([]*string, len(objects))
	for i, object := range objects {
		out[i] = ref(object)
	}
	return out
}
