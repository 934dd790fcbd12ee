package transport

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// ending is why a subscription was ended by its resolver.
type ending struct {
	mu  sync.Mutex
	err *gqlerror.Error
}

type endingKey struct{}

// StreamError has the client told why the subscription of ctx ends. Its
// resolver calls it before it closes the channel.
func StreamError(ctx context.Context, err *gqlerror.Error) {
	if e, ok := ctx.Value(endingKey{}).(*ending); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.err = err
	}
}

func (e *ending) get() *gqlerror.Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// prepare parses and validates an operation. The errors are those of a request
// that is not executed.
func prepare(ctx context.Context, exec graphql.GraphExecutor, params *graphql.RawParams) (*graphql.OperationContext, gqlerror.List) {
	now := graphql.Now()
	params.ReadTime = graphql.TraceTiming{Start: now, End: now}
	opCtx, errs := exec.CreateOperationContext(ctx, params)
	if len(errs) > 0 {
		return nil, exec.DispatchError(graphql.WithOperationContext(ctx, opCtx), errs).Errors
	}
	return opCtx, nil
}

// stream executes a prepared operation and hands out each response. The errors
// it returns are those of a stream that did not begin or that broke off; there
// are none when ctx ended.
func stream(ctx context.Context, exec graphql.GraphExecutor, opCtx *graphql.OperationContext, next func(*graphql.Response)) gqlerror.List {
	end := &ending{}
	responses, ctx := exec.DispatchOperation(context.WithValue(ctx, endingKey{}, end), opCtx)
	for response := responses(ctx); response != nil; response = responses(ctx) {
		if response.Data == nil && len(response.Errors) > 0 {
			return response.Errors
		}
		next(response)
	}
	if err := end.get(); err != nil && ctx.Err() == nil {
		return gqlerror.List{err}
	}
	return nil
}

// contained runs what leads to errors for a client, and makes a panic in it an
// error as well: it is presented like any fault, with its stack.
func (t *Transports) contained(ctx context.Context, run func() gqlerror.List) (errs gqlerror.List) {
	defer func() {
		if p := recover(); p != nil {
			errs = gqlerror.List{t.options.Present(ctx, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))}
		}
	}()
	return run()
}
