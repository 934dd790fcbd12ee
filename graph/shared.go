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

// sharing has what a posted task looks like rendered once for all subscribers
// that ask with the same document, however many there are. Who is party to a
// task may see more of it and gets an answer of its own.
type sharing struct {
	market  *market.Market
	log     *events.Log
	schema  graphql.ExecutableSchema
	present graphql.ErrorPresenterFunc
	contain graphql.RecoverFunc
	ready   *ready
	limit   time.Duration  // of one rendering
	working sync.WaitGroup // groups that render

	mu     sync.Mutex
	groups map[document]*group
}

// document names what subscribers have in common whose answers are the same.
type document [sha256.Size]byte

func newSharing(market *market.Market, log *events.Log, schema graphql.ExecutableSchema, logger *slog.Logger) (*sharing, error) {
	ready, err := newReady()
	return &sharing{
		market: market, log: log, schema: schema, present: presenter(logger, true), contain: contain(logger), ready: ready, limit: operationTimeout,
		groups: map[document]*group{},
	}, err
}

// wait returns when nothing is rendered for groups any more, or ctx ends.
func (s *sharing) wait(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		s.working.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// around begins a subscription and hands it over to its transport, which asks
// for events when there are some.
func (s *sharing) around(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	begun := &tap{}
	responses := next(context.WithValue(ctx, tapKey{}, begun))
	if begun.interest.Filter == nil { // it was refused
		return responses
	}
	listen := s.listen
	if begun.hire != "" {
		listen = s.follow
	}
	if !transport.HandOver(ctx, func(wake func()) transport.Source { return listen(ctx, begun, wake) }) {
		return graphql.OneShot(graphql.ErrorResponse(ctx, "this transport has no subscriptions"))
	}
	return nil // nobody asks it
}

// listener is one subscription.
type listener struct {
	sharing   *sharing
	feed      *events.Feed
	operation *graphql.OperationContext // of all that are answered alike, or its own
	group     *group                    // of those that are answered alike; nil for none
	agent     string
	wake      func()
}

func (s *sharing) listen(ctx context.Context, begun *tap, wake func()) transport.Source {
	actor, _ := auth.FromContext(ctx)
	l := &listener{sharing: s, operation: graphql.GetOperationContext(ctx), agent: actor.AgentID, wake: wake}
	if document, ok := identity(l.operation); ok && begun.shared {
		l.group = s.join(document, ctx)
		l.operation = l.group.operation
	}
	l.feed = s.log.Listen(begun.interest, begun.after, l.awaken)
	return l
}

// awaken has the subscription asked, if it is answered like others once their
// answer is ready.
func (l *listener) awaken(event *models.Event) {
	if event != nil && l.shares(event) {
		l.group.prepare(event, l.wake)
		return
	}
	l.wake()
}

// shares reports whether the event looks to this caller as it does to anybody.
func (l *listener) shares(event *models.Event) bool {
	return l.group != nil && !event.Task.IsParty(l.agent)
}

// Next returns what the subscriber is told of the next event.
func (l *listener) Next(ctx context.Context) (payload []byte, over bool, errs gqlerror.List) {
	event, err := l.feed.Next(ctx)
	switch {
	case err != nil:
		return nil, true, gqlerror.List{Present(ctx, err)}
	case event == nil:
		return nil, false, nil
	case l.shares(event) && !l.feed.Alone():
		if payload := l.group.answer(event); payload != nil {
			return payload, false, nil
		}
	}
	response := l.sharing.render(ctx, l.operation, &tap{one: event})
	if response.Data == nil {
		return nil, true, response.Errors
	}
	return transport.Payload(response), false, nil
}

// Close ends the subscription.
func (l *listener) Close() {
	l.feed.Close()
	if l.group != nil {
		l.group.leave()
	}
}

// render executes a subscription for one event, as the caller in ctx and under
// the time limit of queries. Any number may do so at once with the same operation.
func (s *sharing) render(ctx context.Context, operation *graphql.OperationContext, known *tap) *graphql.Response {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	ctx = context.WithValue(graphql.WithOperationContext(ctx, operation), tapKey{}, known)
	ctx = graphql.WithResponseContext(ctx, s.present, s.contain)
	responses := s.schema.Exec(ctx)
	if errs := graphql.GetErrors(ctx); errs != nil {
		return &graphql.Response{Errors: errs}
	}
	ctx = graphql.WithResponseContext(ctx, s.present, s.contain)
	response := responses(ctx)
	if response == nil {
		return &graphql.Response{Errors: gqlerror.List{s.present(ctx, fmt.Errorf("render an event: %w", ctx.Err()))}}
	}
	response.Errors = append(response.Errors, graphql.GetErrors(ctx)...)
	return response
}
