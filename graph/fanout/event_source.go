package fanout

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/models"
)

// eventSource is a subscription to events.
type eventSource struct {
	hub       *Hub
	feed      *events.Feed
	operation *graphql.OperationContext
	group     *renderGroup // whose members share payloads; nil for a private document
	wake      func()
}

func (h *Hub) openEventSource(ctx context.Context, interest Interest, wake func()) *eventSource {
	s := &eventSource{hub: h, operation: graphql.GetOperationContext(ctx), wake: wake}
	if key, ok := groupKeyFor(s.operation); ok {
		s.group = h.joinGroup(ctx, key)
		s.operation = s.group.operation // lets the member's own be freed
	}
	s.feed = h.log.OpenFeed(interest.Interest, interest.After, s.onEvent)
	return s
}

// onEvent wakes the subscription, in a group after the event has been rendered.
func (s *eventSource) onEvent(event *models.Event) {
	if event != nil && s.group != nil {
		s.group.notifyWhenReady(event, s.wake)
		return
	}
	s.wake()
}

// Next returns the payload of the next event.
func (s *eventSource) Next(ctx context.Context) (payload []byte, done bool, errs gqlerror.List) {
	event, err := s.feed.Next(ctx)
	switch {
	case err != nil:
		return nil, true, gqlerror.List{s.hub.presentError(ctx, err)}
	case event == nil:
		return nil, false, nil
	case s.group != nil && !s.feed.Replaying():
		if payload := s.group.payload(event); payload != nil {
			return payload, false, nil
		}
	}
	response := s.hub.render(ctx, s.operation, Event{Event: event})
	if response.Data == nil {
		return nil, true, response.Errors
	}
	return transport.MarshalResponse(response), false, nil
}

// Close ends the subscription.
func (s *eventSource) Close() {
	s.feed.Close()
	if s.group != nil {
		s.group.leave()
	}
}
