package fanout

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/models"
)

// Interest is what a subscription receives.
type Interest struct {
	events.Interest
	After *int64 // the cursor to resume from; nil for new events only
	// ExecutionTaskID is the hire that the subscription follows to its end. It is empty
	// for a stream of events.
	ExecutionTaskID string
}

// InterestFunc returns the interest of a subscription from the arguments of its field,
// as the types of its resolver's parameters. ctx has the subscriber.
type InterestFunc func(ctx context.Context, args map[string]any) (Interest, error)

// resolveInterest calls the InterestFunc of a subscription in place of its resolver, so
// that gqlgen parses the arguments and presents errors as for any field. If there is an
// error it returns nil and the response to send.
func (h *Hub) resolveInterest(ctx context.Context, next graphql.OperationHandler) (*Interest, graphql.ResponseHandler) {
	var interest *Interest
	o := graphql.GetOperationContext(ctx)
	responses := next(graphql.WithOperationContext(ctx, &graphql.OperationContext{
		RawQuery: o.RawQuery, Variables: o.Variables, OperationName: o.OperationName, Doc: o.Doc, Operation: o.Operation,
		Extensions: o.Extensions, Headers: o.Headers, DisableIntrospection: o.DisableIntrospection, Stats: o.Stats,
		RecoverFunc: o.RecoverFunc, RootResolverMiddleware: o.RootResolverMiddleware,
		ResolverMiddleware: func(ctx context.Context, _ graphql.Resolver) (any, error) {
			field := graphql.GetFieldContext(ctx)
			interestOf, ok := h.interests[field.Field.Name]
			if !ok {
				return nil, models.Errorf(models.Internal, "subscription %s has no interest", field.Field.Name)
			}
			result, err := interestOf(ctx, field.Args)
			if err != nil {
				return nil, err
			}
			interest = &result
			return noEvents, nil
		},
	}))
	return interest, responses
}

// noEvents is the stream of a subscription field as gqlgen expects it. Events are
// rendered one at a time instead, see [Hub.render].
func noEvents(context.Context) graphql.Marshaler { return nil }
