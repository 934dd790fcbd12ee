package graph

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// PostTask is the resolver for the postTask field.
func (r *mutationResolver) PostTask(ctx context.Context, input PostTaskInput) (*PostTaskPayload, error) {
	task := &Task{
		ID:                   uuid.NewString(),
		Title:                input.Title,
		Description:          input.Description,
		Budget:               input.Budget,
		RequiredCapabilities: input.RequiredCapabilities,
		Status:               TaskStatusOpen,
		Poster:               r.Page[0].Poster,
		CreatedAt:            time.Now().UTC().Format(time.RFC3339Nano),
	}
	if r.Store != nil {
		if err := r.Store.Create(ctx, task); err != nil {
			return nil, err
		}
	}
	r.Publish(task)
	return &PostTaskPayload{Task: task}, nil
}

// Task is the resolver for the task field: a constant with the id asked for.
func (r *queryResolver) Task(ctx context.Context, id string) (*Task, error) {
	task := *r.Page[0]
	task.ID = id
	return &task, nil
}

// Tasks is the resolver for the tasks field: a constant page of 20.
func (r *queryResolver) Tasks(ctx context.Context, first *int, filter *TaskFilter) (*TaskConnection, error) {
	return &TaskConnection{Nodes: r.Page}, nil
}

// TaskPosted is the resolver for the taskPosted field.
func (r *subscriptionResolver) TaskPosted(ctx context.Context, capabilities []string) (<-chan *TaskPostedEvent, error) {
	return r.Hub.Subscribe(ctx), nil
}

// Mutation returns MutationResolver implementation.
func (r *Resolver) Mutation() MutationResolver { return &mutationResolver{r} }

// Query returns QueryResolver implementation.
func (r *Resolver) Query() QueryResolver { return &queryResolver{r} }

// Subscription returns SubscriptionResolver implementation.
func (r *Resolver) Subscription() SubscriptionResolver { return &subscriptionResolver{r} }

type (
	mutationResolver     struct{ *Resolver }
	queryResolver        struct{ *Resolver }
	subscriptionResolver struct{ *Resolver }
)
