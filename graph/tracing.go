package graph

import (
	"context"
	"errors"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/internal/tracing"
)

// tracingExtension has a span for each operation, and for each field that a query or a mutation
// begins with. Nothing of what the client wrote is in them: neither the document nor
// the name that it gave the operation.
type tracingExtension struct{ tracer *tracing.Tracer }

// ExtensionName names it.
func (*tracingExtension) ExtensionName() string { return "Tracing" }

// Validate refuses a server without a tracer.
func (t *tracingExtension) Validate(graphql.ExecutableSchema) error {
	if t.tracer == nil {
		return errors.New("there is no tracer")
	}
	return nil
}

// InterceptOperation has a span for the operation, to its first answer. A subscription's
// ends when it has begun, and what it tells later is no part of it.
func (t *tracingExtension) InterceptOperation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	operation := graphql.GetOperationContext(ctx).Operation
	root := rootFieldOf(operation)
	within, span := t.tracer.Start(ctx, root.Kind+" "+root.Name)
	if operation.Operation == ast.Subscription {
		defer span.End()
		return next(ctx)
	}
	responses := next(within)
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if response != nil && len(response.Errors) > 0 {
			code, _ := response.Errors[0].Extensions["code"].(string)
			span.SetError(code)
		}
		span.End() // the first time alone counts
		return response
	}
}

// InterceptRootField has a span for the field's resolver and what is below it.
func (*tracingExtension) InterceptRootField(ctx context.Context, next graphql.RootResolver) graphql.Marshaler {
	field := graphql.GetRootFieldContext(ctx).Field
	ctx, span := tracing.Start(ctx, field.ObjectDefinition.Name+"."+field.Name)
	defer span.End()
	return next(ctx)
}
