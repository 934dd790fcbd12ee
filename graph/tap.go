package graph

import (
	"context"

	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/models"
)

// tap has a subscription's resolver say what its caller wants to hear of, or
// tell of one event that is known already.
type tap struct {
	interest events.Interest // set by the resolver, as what follows
	after    *int64          // the cursor to begin after, nil for none
	shared   bool            // an event looks the same to all but those party to its task
	hire     string          // the hire that is followed to its end; empty for events as they happen

	one  *models.Event // what to tell of instead
	text string        // and what the model wrote
}

type tapKey struct{}

// told is what a subscription's resolver returns: the one event that it is run
// for, converted, or nothing, once note has written down what the caller wants.
func told[T any](ctx context.Context, convert func(*models.Event) (*T, error), note func(*tap) error) (<-chan *T, error) {
	t, ok := ctx.Value(tapKey{}).(*tap)
	switch {
	case !ok:
		return nil, models.Errorf(models.Internal, "a subscription is run for its transport only")
	case t.one == nil:
		err := note(t)
		if err != nil {
			*t = tap{}
		}
		return nil, err
	}
	event, err := convert(t.one)
	if err != nil {
		return nil, err
	}
	out := make(chan *T, 1)
	defer close(out)
	out <- event
	return out, nil
}
