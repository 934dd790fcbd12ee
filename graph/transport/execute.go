package transport

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// prepareOperation parses and validates an operation. If it returns errors, the operation
// must not be executed.
func prepareOperation(ctx context.Context, exec graphql.GraphExecutor, params *graphql.RawParams) (*graphql.OperationContext, gqlerror.List) {
	now := graphql.Now()
	params.ReadTime = graphql.TraceTiming{Start: now, End: now}
	opCtx, errs := exec.CreateOperationContext(ctx, params)
	if len(errs) > 0 {
		describeWrongNumbers(errs, params.Variables)
		return nil, exec.DispatchError(graphql.WithOperationContext(ctx, opCtx), errs).Errors
	}
	return opCtx, nil
}

// executeOperation executes a prepared operation and passes each response to next. If
// the operation continues as a source, executeOperation opens the source with wake and
// returns it. It returns the errors of an operation that did not start or that failed.
func executeOperation(ctx context.Context, exec graphql.GraphExecutor, opCtx *graphql.OperationContext, wake func(), next func(*graphql.Response)) (Source, gqlerror.List) {
	responses, ctx := exec.DispatchOperation(ctx, opCtx)
	for response := responses(ctx); response != nil; response = responses(ctx) {
		if open := sourceOpenerOf(response); open != nil {
			return open(wake), nil
		}
		if response.Data == nil && len(response.Errors) > 0 {
			return nil, response.Errors
		}
		next(response)
	}
	return nil, nil
}

// recoverPanic calls run and converts a panic to an internal error. The stack is logged,
// not sent to the client.
func (t *Transports) recoverPanic(ctx context.Context, run func() gqlerror.List) (errs gqlerror.List) {
	defer func() {
		if p := recover(); p != nil {
			errs = t.presentPanic(ctx, p)
		}
	}()
	return run()
}

func (t *Transports) presentPanic(ctx context.Context, p any) gqlerror.List {
	return gqlerror.List{t.options.PresentError(ctx, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))}
}
