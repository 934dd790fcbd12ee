package graph

import (
	"context"

	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/models"
)

// SubscriptionRequest has a subscription's resolver say what its caller wants to hear of, or
// tell of one event that is known already.
type SubscriptionRequest struct {
	Interest        events.Interest // set by the resolver, as what follows
	After           *int64          // the cursor to begin after, nil for none
	Shareable       bool            // an event looks the same to all but those party to its task
	ExecutionTaskID string          // the hire that is followed to its end; empty for events as they happen

	Event *models.Event // what to tell of instead
	Text  string        // and what the model wrote
}

type subscriptionRequestKey struct{}

// ResolveSubscription is what a subscription's resolver returns: the one event that it is run
// for, converted, or nothing, once note has written down what the caller wants.
func ResolveSubscription[T any](ctx context.Context, convert func(*models.Event) (*T, error), note func(*SubscriptionRequest) error) (<-chan *T, error) {
	t, ok := ctx.Value(subscriptionRequestKey{}).(*SubscriptionRequest)
	switch {
	case !ok:
		return nil, models.Errorf(models.Internal, "a subscription is run for its transport only")
	case t.Event == nil:
		err := note(t)
		if err != nil {
			*t = SubscriptionRequest{}
		}
		return nil, err
	}
	event, err := convert(t.Event)
	if err != nil {
		return nil, err
	}
	out := make(chan *T, 1)
	defer close(out)
	out <- event
	return out, nil
}
