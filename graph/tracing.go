package graph

import (
	"context"
	"errors"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/internal/tracing"
)

// tracingExtension records a span for each operation and for each root field of a query
// or mutation. Spans contain nothing that the client wrote, not even the operation name.
type tracingExtension struct{ tracer *tracing.Tracer }

// ExtensionName implements graphql.HandlerExtension.
func (*tracingExtension) ExtensionName() string { return "Tracing" }

// Validate implements graphql.HandlerExtension.
func (t *tracingExtension) Validate(graphql.ExecutableSchema) error {
	if t.tracer == nil {
		return errors.New("tracing: no tracer")
	}
	return nil
}

// InterceptOperation records a span from the start of an operation to its first response.
// The span of a subscription ends when the subscription has started.
func (t *tracingExtension) InterceptOperation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	op := graphql.GetOperationContext(ctx).Operation
	root := operation.RootFieldOf(op)
	spanCtx, span := t.tracer.Start(ctx, root.Kind+" "+root.Name)
	if op.Operation == ast.Subscription {
		defer span.End()
		return next(ctx)
	}
	responses := next(spanCtx)
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if response != nil && len(response.Errors) > 0 {
			code, _ := response.Errors[0].Extensions["code"].(string)
			span.SetError(code)
		}
		span.End() // no effect after the first response
		return response
	}
}

// InterceptRootField records a span for a root field and the fields below it.
func (*tracingExtension) InterceptRootField(ctx context.Context, next graphql.RootResolver) graphql.Marshaler {
	field := graphql.GetRootFieldContext(ctx).Field
	ctx, span := tracing.Start(ctx, field.ObjectDefinition.Name+"."+field.Name)
	defer span.End()
	return next(ctx)
}
