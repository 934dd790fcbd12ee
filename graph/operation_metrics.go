package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/cache"
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/models"
)

// Meter observes operations. Its methods run on every operation and must return
// quickly.
type Meter interface {
	// ObserveOperation gets the time that an operation took to its first response. The
	// first response of a subscription is its start.
	cache.Meter
	// CountError gets the code of every error, including that of rejected documents.
	CountError(code models.Code)
}

// RootFields returns every root field of the schema, and [operation.MultipleFields] of
// each kind of operation.
func RootFields() []operation.RootField {
	return operation.RootFields(generated.NewExecutableSchema(generated.Config{}).Schema())
}

// observeOperation reports an operation to the meter when responses returns the first
// one.
func (o *ServerOptions) observeOperation(ctx context.Context, responses graphql.ResponseHandler) graphql.ResponseHandler {
	if o.Meter == nil {
		return responses
	}
	op := graphql.GetOperationContext(ctx)
	observed := false
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if !observed {
			observed = true
			o.Meter.ObserveOperation(operation.RootFieldOf(op.Operation), graphql.Now().Sub(op.Stats.OperationStart))
		}
		return response
	}
}
