package transport

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// sourceSlot is what a subscription's resolver tells the transport that runs it.
type sourceSlot struct {
	wake   func()
	source Source // that it was handed over to; nil for none
}

type sourceSlotKey struct{}

// prepareOperation parses and validates an operation. The errors are those of a request
// that is not executed.
func prepareOperation(ctx context.Context, exec graphql.GraphExecutor, params *graphql.RawParams) (*graphql.OperationContext, gqlerror.List) {
	now := graphql.Now()
	params.ReadTime = graphql.TraceTiming{Start: now, End: now}
	opCtx, errs := exec.CreateOperationContext(ctx, params)
	if len(errs) > 0 {
		return nil, exec.DispatchError(graphql.WithOperationContext(ctx, opCtx), errs).Errors
	}
	return opCtx, nil
}

// executeOperation executes a prepared operation and hands out each response, unless the
// operation is one that goes on as a source: that is returned. Wake is for it.
// The errors are those of an operation that did not begin or that broke off.
func executeOperation(ctx context.Context, exec graphql.GraphExecutor, opCtx *graphql.OperationContext, wake func(), next func(*graphql.Response)) (Source, gqlerror.List) {
	o := &sourceSlot{wake: wake}
	responses, ctx := exec.DispatchOperation(context.WithValue(ctx, sourceSlotKey{}, o), opCtx)
	if o.source != nil {
		return o.source, nil
	}
	for response := responses(ctx); response != nil; response = responses(ctx) {
		if response.Data == nil && len(response.Errors) > 0 {
			return nil, response.Errors
		}
		next(response)
	}
	return nil, nil
}

// recoverPanic runs what leads to errors for a client, and makes a panic in it an
// error as well: it is presented like any fault, with its stack.
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
