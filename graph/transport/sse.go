package transport

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

// eventStream serves operations as server-sent events, one a connection
// (graphql-sse, distinct connections mode).
type eventStream struct{ *Transports }

// Supports takes requests that accept an event stream.
func (*eventStream) Supports(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/event-stream")
}

// Do streams one operation to its end.
func (t *eventStream) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	plain := &plainHTTP{t.Transports}
	plain.setHeaders(w)
	params, refused := readRequest(w, r, t.options.MaxBody)
	if refused != nil {
		plain.respondError(w, typeJSON, refused)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	var opCtx *graphql.OperationContext
	errs := t.recoverPanic(ctx, func() (errs gqlerror.List) {
		opCtx, errs = prepareOperation(ctx, exec, params)
		return errs
	})
	if errs != nil {
		plain.respond(w, typeJSON, http.StatusBadRequest, &graphql.Response{Errors: errs})
		return
	}
	if refused := rejectMutationByGET(w, r, opCtx); refused != nil {
		plain.respondError(w, typeJSON, refused)
		return
	}
	l := &connection{address: t.options.Address(ctx), key: t.options.Key(ctx), disconnect: func(code int, reason string) {
		cancel(&closeError{code, reason})
	}}
	if err := t.addConnection(l); err != nil {
		w.Header().Set("Retry-After", "5")
		plain.respondError(w, typeJSON, &requestError{http.StatusServiceUnavailable, models.Unavailable, err.Error()})
		return
	}
	defer t.removeConnection(l)
	t.serve(ctx, cancel, w, func(wake func(), next func(*graphql.Response)) (source Source, errs gqlerror.List) {
		errs = t.recoverPanic(ctx, func() (errs gqlerror.List) {
			source, errs = executeOperation(ctx, exec, opCtx, wake, next)
			return errs
		})
		return source, errs
	})
}

// operationFunc runs an operation. Its responses are handed to next, unless it goes
// on as a source.
type operationFunc func(wake func(), next func(*graphql.Response)) (Source, gqlerror.List)

// serve writes each response of an operation as an event, and comments in
// between that show life. A client that does not read is given up.
func (t *eventStream) serve(ctx context.Context, cancel context.CancelCauseFunc, w http.ResponseWriter, run operationFunc) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(w)
	send := func(text []byte) {
		_ = control.SetWriteDeadline(time.Now().Add(t.options.WriteTimeout)) //nolint:forbidigo // a real connection's deadline
		_, err := w.Write(text)
		if err == nil {
			err = control.Flush()
		}
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded) {
				t.cutOff.Add(1)
			}
			cancel(err)
		}
	}
	send([]byte(":\n\n"))
	t.writeEvents(ctx, run, send)
	send(streamEnd(context.Cause(ctx)))
}

// writeEvents hands out the events of an operation to its end.
func (t *eventStream) writeEvents(ctx context.Context, run operationFunc, send func([]byte)) {
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	events, handed := startOperation(ctx, wake, run)
	var source Source
	ticker := time.NewTicker(t.options.PingInterval / 2)
	defer ticker.Stop()
	for {
		select {
		case text, more := <-events:
			if !more {
				return
			}
			send(text)
		case source = <-handed:
			defer source.Close() // the only one
			events = nil
			wake()
		case <-woken:
			if source != nil && t.drainSource(ctx, source, send) {
				return
			}
		case <-sourceDone(ctx, source):
			return
		case <-ticker.C:
			send([]byte(":\n\n"))
		}
	}
}

// sourceDone tells when the stream of a source is at its end. Without a source it is
// whoever runs the operation that says so.
func sourceDone(ctx context.Context, source Source) <-chan struct{} {
	if source == nil {
		return nil
	}
	return ctx.Done()
}

// startOperation runs an operation and returns its events, and the source that it goes
// on as, if it does.
func startOperation(ctx context.Context, wake func(), run operationFunc) (<-chan []byte, <-chan Source) {
	events, handed := make(chan []byte), make(chan Source, 1)
	emit := func(text []byte) {
		select {
		case events <- text:
		case <-ctx.Done():
		}
	}
	go func() {
		source, errs := run(wake, func(response *graphql.Response) { emit(nextEvent(MarshalResponse(response))) })
		if source != nil {
			handed <- source
			return
		}
		if len(errs) > 0 {
			emit(nextEvent(MarshalResponse(&graphql.Response{Errors: errs})))
		}
		close(events)
	}()
	return events, handed
}

// drainSource hands out what a source has, and reports whether it is over.
func (t *eventStream) drainSource(ctx context.Context, source Source, send func([]byte)) bool {
	for ctx.Err() == nil {
		var texts []byte
		over := false
		for len(texts) < chunkSize && !over {
			payload, isOver, errs := t.pullSource(ctx, source)
			if over = isOver; len(errs) > 0 && ctx.Err() == nil {
				payload = MarshalResponse(&graphql.Response{Errors: errs})
			}
			if payload == nil {
				break
			}
			texts = append(texts, nextEvent(payload)...)
		}
		if len(texts) > 0 {
			send(texts)
		}
		if over || len(texts) == 0 {
			return over
		}
	}
	return true
}

// streamEnd is how a stream ends. One that the server cuts off because it stops has
// no complete event: the client sees that it was cut and connects again.
func streamEnd(cause error) []byte {
	complete := []byte("event: complete\ndata:\n\n")
	if cause == nil {
		return complete
	}
	if end, ok := cause.(*closeError); ok && end.code == closeUnauthorized { //nolint:errorlint // made here, never wrapped
		refused := errorList(&requestError{http.StatusUnauthorized, models.Unauthenticated, end.reason})
		return append(nextEvent(MarshalResponse(&graphql.Response{Errors: refused})), complete...)
	}
	return nil
}

// nextEvent makes a payload a next event.
func nextEvent(payload []byte) []byte {
	return slices.Concat([]byte("event: next\ndata: "), payload, []byte("\n\n"))
}
