package graph

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// Hub has what a posted task looks like rendered once for all subscribers
// that ask with the same document, however many there are. Who is party to a
// task may see more of it and gets an answer of its own.
type Hub struct {
	market        *market.Market
	log           *events.Log
	schema        graphql.ExecutableSchema
	presentError  graphql.ErrorPresenterFunc
	recoverPanic  graphql.RecoverFunc
	payloads      *payloadCache
	renderTimeout time.Duration  // of one rendering
	renderers     sync.WaitGroup // groups that render

	mu     sync.Mutex
	groups map[operationKey]*renderGroup
}

// operationKey names what subscribers have in common whose answers are the same.
type operationKey [sha256.Size]byte

func NewHub(market *market.Market, log *events.Log, schema graphql.ExecutableSchema, logger *slog.Logger) (*Hub, error) {
	ready, err := newPayloadCache()
	return &Hub{
		market: market, log: log, schema: schema, presentError: errorPresenter(logger, true), recoverPanic: panicHandler(logger), payloads: ready, renderTimeout: operationTimeout,
		groups: map[operationKey]*renderGroup{},
	}, err
}

// Wait returns when nothing is rendered for groups any more, or ctx ends.
func (s *Hub) Wait(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		s.renderers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// InterceptOperation begins a subscription and hands it over to its transport, which asks
// for events when there are some.
func (s *Hub) InterceptOperation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	begun := &SubscriptionRequest{}
	responses := next(context.WithValue(ctx, subscriptionRequestKey{}, begun))
	if begun.Interest.Filter == nil { // it was refused
		return responses
	}
	listen := s.subscribe
	if begun.ExecutionTaskID != "" {
		listen = s.subscribeExecution
	}
	if !transport.AttachSource(ctx, func(wake func()) transport.Source { return listen(ctx, begun, wake) }) {
		return graphql.OneShot(graphql.ErrorResponse(ctx, "this transport has no subscriptions"))
	}
	return nil // nobody asks it
}

// eventSource is one subscription.
type eventSource struct {
	hub       *Hub
	feed      *events.Feed
	operation *graphql.OperationContext // of all that are answered alike, or its own
	group     *renderGroup              // of those that are answered alike; nil for none
	agentID   string
	wake      func()
}

func (s *Hub) subscribe(ctx context.Context, begun *SubscriptionRequest, wake func()) transport.Source {
	actor, _ := auth.FromContext(ctx)
	l := &eventSource{hub: s, operation: graphql.GetOperationContext(ctx), agentID: actor.AgentID, wake: wake}
	if document, ok := operationKeyFor(l.operation); ok && begun.Shareable {
		l.group = s.joinGroup(document, ctx)
		l.operation = l.group.operation
	}
	l.feed = s.log.OpenFeed(begun.Interest, begun.After, l.onEvent)
	return l
}

// onEvent has the subscription asked, if it is answered like others once their
// answer is ready.
func (l *eventSource) onEvent(event *models.Event) {
	if event != nil && l.isShareable(event) {
		l.group.notifyWhenReady(event, l.wake)
		return
	}
	l.wake()
}

// isShareable reports whether the event looks to this caller as it does to anybody.
func (l *eventSource) isShareable(event *models.Event) bool {
	return l.group != nil && !event.Task.IsParty(l.agentID)
}

// Next returns what the subscriber is told of the next event.
func (l *eventSource) Next(ctx context.Context) (payload []byte, over bool, errs gqlerror.List) {
	event, err := l.feed.Next(ctx)
	switch {
	case err != nil:
		return nil, true, gqlerror.List{PresentError(ctx, err)}
	case event == nil:
		return nil, false, nil
	case l.isShareable(event) && !l.feed.Replaying():
		if payload := l.group.payload(event); payload != nil {
			return payload, false, nil
		}
	}
	response := l.hub.render(ctx, l.operation, &SubscriptionRequest{Event: event})
	if response.Data == nil {
		return nil, true, response.Errors
	}
	return transport.MarshalResponse(response), false, nil
}

// Close ends the subscription.
func (l *eventSource) Close() {
	l.feed.Close()
	if l.group != nil {
		l.group.leave()
	}
}

// render executes a subscription for one event, as the caller in ctx and under
// the time limit of queries. Any number may do so at once with the same operation.
func (s *Hub) render(ctx context.Context, operation *graphql.OperationContext, known *SubscriptionRequest) *graphql.Response {
	ctx, cancel := context.WithTimeout(ctx, s.renderTimeout)
	defer cancel()
	ctx = context.WithValue(graphql.WithOperationContext(ctx, operation), subscriptionRequestKey{}, known)
	ctx = graphql.WithResponseContext(ctx, s.presentError, s.recoverPanic)
	responses := s.schema.Exec(ctx)
	if errs := graphql.GetErrors(ctx); errs != nil {
		return &graphql.Response{Errors: errs}
	}
	ctx = graphql.WithResponseContext(ctx, s.presentError, s.recoverPanic)
	response := responses(ctx)
	if response == nil {
		return &graphql.Response{Errors: gqlerror.List{s.presentError(ctx, fmt.Errorf("render an event: %w", ctx.Err()))}}
	}
	response.Errors = append(response.Errors, graphql.GetErrors(ctx)...)
	return response
}
