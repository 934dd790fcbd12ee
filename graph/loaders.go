package graph

import (
	"context"
	"slices"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/models"
)

// loaders batch the reads by id of one query. A list queues the ids that its items refer
// to; the first load reads all queued ids with one statement. So a list takes as many
// statements as one item, at any depth.
//
// Loaders live as long as their query. Mutations and subscriptions have no shared
// loaders, because they must not read data older than their own write or event.
type loaders struct {
	agents   loader[models.Agent]
	tasks    loader[models.Task]
	attempts loader[[]*models.Attempt]
}

type loadersKey struct{}

func withLoaders(ctx context.Context) context.Context {
	return context.WithValue(ctx, loadersKey{}, &loaders{})
}

// loadersFrom returns the loaders of a query, new ones outside a query.
func loadersFrom(ctx context.Context) *loaders {
	if l, ok := ctx.Value(loadersKey{}).(*loaders); ok {
		return l
	}
	return &loaders{}
}

// prefetchTaskAgents queues the posters and workers of tasks.
func (l *loaders) prefetchTaskAgents(tasks []models.Task) {
	for i := range tasks {
		l.agents.prefetch(&tasks[i].PosterID, tasks[i].WorkerID)
	}
}

// loader loads objects of one type by id. It is safe for concurrent use.
type loader[T any] struct {
	mu     sync.Mutex
	queued []string      // may have duplicates
	loaded map[string]*T // nil for an unknown id
}

// prefetch queues ids for the next load. It skips nil.
func (l *loader[T]) prefetch(ids ...*string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueue(ids)
}

func (l *loader[T]) enqueue(ids []*string) {
	for _, id := range ids {
		if l.needsLoad(id) {
			l.queued = append(l.queued, *id)
		}
	}
}

// load returns the objects with these ids in the same order, nil for a nil or unknown id.
// If one is not loaded yet, it loads all queued ids. Concurrent calls wait.
func (l *loader[T]) load(ids []*string, load func(ids []string) (map[string]*T, error)) ([]*T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(ids, l.needsLoad) {
		l.enqueue(ids)
		slices.Sort(l.queued)
		l.queued = slices.Compact(l.queued)
		found, err := load(l.queued)
		if err != nil {
			return nil, err
		}
		if l.loaded == nil {
			l.loaded = make(map[string]*T, len(l.queued))
		}
		for _, id := range l.queued {
			l.loaded[id] = found[id]
		}
		l.queued = nil
	}
	out := make([]*T, len(ids))
	for i, id := range ids {
		if id != nil {
			out[i] = l.loaded[*id]
		}
	}
	return out, nil
}

func (l *loader[T]) needsLoad(id *string) bool {
	if id == nil {
		return false
	}
	_, loaded := l.loaded[*id]
	return !loaded
}

// loadAgents returns the agents with these ids, nil for a nil id.
func (r *Resolver) loadAgents(ctx context.Context, ids []*string) ([]*models.Agent, error) {
	return loadersFrom(ctx).agents.load(ids, func(ids []string) (map[string]*models.Agent, error) {
		agents, err := r.Market.Agents(ctx, ids)
		return byID(agents, func(a *models.Agent) string { return a.ID }), err
	})
}

// loadTaskAgents is loadAgents for agents that exist. It reads nothing for a selection of
// only their ids.
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

// loadTasks returns the tasks with these ids, nil for a nil id.
func (r *Resolver) loadTasks(ctx context.Context, ids []*string) ([]*models.Task, error) {
	l := loadersFrom(ctx)
	return l.tasks.load(ids, func(ids []string) (map[string]*models.Task, error) {
		tasks, err := r.Market.Tasks(ctx, ids)
		l.prefetchTaskAgents(tasks)
		return byID(tasks, func(t *models.Task) string { return t.ID }), err
	})
}

// loadAttempts returns the attempts of a delivery, oldest first.
func (r *Resolver) loadAttempts(ctx context.Context, deliveryID string) ([]*models.Attempt, error) {
	loaded, err := loadersFrom(ctx).attempts.load([]*string{&deliveryID}, func(ids []string) (map[string]*[]*models.Attempt, error) {
		attempts, err := r.Webhooks.Attempts(ctx, ids...)
		byDelivery := make(map[string]*[]*models.Attempt, len(ids))
		for i := range attempts {
			list := byDelivery[attempts[i].DeliveryID]
			if list == nil {
				list = new([]*models.Attempt)
				byDelivery[attempts[i].DeliveryID] = list
			}
			*list = append(*list, &attempts[i])
		}
		return byDelivery, err
	})
	if err != nil || loaded[0] == nil {
		return []*models.Attempt{}, err
	}
	return *loaded[0], nil
}

func byID[T any](found []T, id func(*T) string) map[string]*T {
	out := make(map[string]*T, len(found))
	for i := range found {
		out[id(&found[i])] = &found[i]
	}
	return out
}

// collectIDs returns the id that each object refers to.
func collectIDs[T any](objects []T, ref func(T) *string) []*string {
	out := make([]*string, len(objects))
	for i, object := range objects {
		out[i] = ref(object)
	}
	return out
}
