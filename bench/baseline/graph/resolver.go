package graph

import (
	"context"
	"strconv"

	"github.com/google/uuid"
)

// Resolver answers with constants, except that posted tasks go to Store, when
// there is one, and then to Publish.
type Resolver struct {
	Store   Store
	Publish func(*Task)
	Hub     *Hub
	Page    []*Task
}

// Store keeps a posted task, and returns when it is durable. The context has
// the poster's API key in it.
type Store interface {
	Create(ctx context.Context, task *Task) error
}

// Constants is a resolver with a page of 20 tasks of that description.
func Constants(description string) *Resolver {
	hub := NewHub()
	r := &Resolver{Hub: hub, Publish: hub.Publish}
	poster := &Agent{ID: uuid.NewString()}
	for i := range 20 {
		r.Page = append(r.Page, &Task{
			ID:                   uuid.NewString(),
			Title:                "bench " + strconv.Itoa(100000000+i),
			Description:          description,
			Budget:               10,
			RequiredCapabilities: []string{"bench", "research"},
			Status:               TaskStatusOpen,
			Poster:               poster,
			CreatedAt:            "2026-03-13T12:00:00.123456Z",
		})
	}
	return r
}

type keyOfPoster struct{}

// WithKey returns a context with the API key of a request.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfPoster{}, key)
}

// KeyFrom returns the API key that WithKey put into ctx, or "".
func KeyFrom(ctx context.Context) string {
	key, ok := ctx.Value(keyOfPoster{}).(string)
	if !ok {
		return ""
	}
	return key
}
