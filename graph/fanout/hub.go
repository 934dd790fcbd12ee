package fanout

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/market"
)

// Options are the dependencies of a hub.
type Options struct {
	Market        *market.Market
	Log           *events.Log
	Schema        graphql.ExecutableSchema
	Interests     map[string]InterestFunc // by subscription field
	RenderTimeout time.Duration           // of one event
	PresentError  graphql.ErrorPresenterFunc
	RecoverPanic  graphql.RecoverFunc
}

// Hub runs subscriptions. It is safe for concurrent use.
type Hub struct {
	market        *market.Market
	log           *events.Log
	schema        graphql.ExecutableSchema
	interests     map[string]InterestFunc
	renderTimeout time.Duration
	presentError  graphql.ErrorPresenterFunc
	recoverPanic  graphql.RecoverFunc
	payloads      *payloadCache
	renderers     sync.WaitGroup // groups that are rendering

	mu     sync.Mutex
	groups map[operation.Hash]*renderGroup
}

// New returns a hub.
func New(o Options) (*Hub, error) {
	payloads, err := newPayloadCache()
	return &Hub{
		market: o.Market, log: o.Log, schema: o.Schema, interests: o.Interests, renderTimeout: o.RenderTimeout,
		presentError: o.PresentError, recoverPanic: o.RecoverPanic, payloads: payloads, groups: map[operation.Hash]*renderGroup{},
	}, err
}

// Wait blocks until all groups have finished rendering or ctx is done.
func (h *Hub) Wait(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		h.renderers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// InterceptOperation starts a subscription. The response tells the transport to open the
// source of its events.
func (h *Hub) InterceptOperation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	interest, responses := h.resolveInterest(ctx, next)
	if interest == nil {
		return responses
	}
	return graphql.OneShot(transport.SourceResponse(func(wake func()) transport.Source { return h.open(ctx, *interest, wake) }))
}

// open opens the source of a subscription. ctx has its operation and its subscriber.
func (h *Hub) open(ctx context.Context, interest Interest, wake func()) transport.Source {
	if interest.ExecutionTaskID != "" {
		return h.openExecutionSource(ctx, interest, wake)
	}
	return h.openEventSource(ctx, interest, wake)
}

// render executes a subscription for one event, as the caller in ctx. It may run
// concurrently for the same operation.
func (h *Hub) render(ctx context.Context, o *graphql.OperationContext, event Event) *graphql.Response {
	ctx, cancel := context.WithTimeout(ctx, h.renderTimeout)
	defer cancel()
	ctx = context.WithValue(graphql.WithOperationContext(ctx, o), eventKey{}, event)
	ctx = graphql.WithResponseContext(ctx, h.presentError, h.recoverPanic)
	responses := h.schema.Exec(ctx)
	if errs := graphql.GetErrors(ctx); errs != nil {
		return &graphql.Response{Errors: errs}
	}
	ctx = graphql.WithResponseContext(ctx, h.presentError, h.recoverPanic)
	response := responses(ctx)
	if response == nil {
		return &graphql.Response{Errors: gqlerror.List{h.presentError(ctx, fmt.Errorf("render an event: %w", ctx.Err()))}}
	}
	response.Errors = append(response.Errors, graphql.GetErrors(ctx)...)
	return response
}
