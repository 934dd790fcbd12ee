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

// NewConstantResolver is a resolver with a page of 20 tasks of that description.
func NewConstantResolver(description string) *Resolver {
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

type apiKeyContextKey struct{}

// WithAPIKey returns a context with the API key of a request.
func WithAPIKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, apiKeyContextKey{}, key)
}

// APIKeyFrom returns the API key that WithAPIKey put into ctx, or "".
func APIKeyFrom(ctx context.Context) string {
	key, ok := ctx.Value(apiKeyContextKey{}).(string)
	if !ok {
		return ""
	}
	return key
}
