package fanout

import (
	"context"

	"agentmarket.space/server/models"
)

// Event is an event to render for subscribers.
type Event struct {
	*models.Event
	Text string // what a hire's model wrote since the previous event, if that is the event
}

type eventKey struct{}

// Render implements the resolver of a subscription field: it returns the event in ctx
// as the field's type.
func Render[T any](ctx context.Context, convert func(Event) (*T, error)) (<-chan *T, error) {
	event, ok := ctx.Value(eventKey{}).(Event)
	if !ok {
		return nil, models.Errorf(models.Internal, "the transport does not support subscriptions")
	}
	result, err := convert(event)
	if err != nil {
		return nil, err
	}
	out := make(chan *T, 1)
	out <- result
	close(out)
	return out, nil
}
