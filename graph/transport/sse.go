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

// eventStream serves operations as server-sent events, one operation per connection
// (the distinct connections mode of graphql-sse).
type eventStream struct{ *Transports }

// Supports reports whether the client accepts an event stream.
func (*eventStream) Supports(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/event-stream")
}

// Do streams the responses of one operation until it ends.
func (t *eventStream) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	plain := &plainHTTP{t.Transports}
	plain.setHeaders(w)
	params, reqErr := readRequest(w, r, t.options.MaxBody)
	if reqErr != nil {
		plain.respondError(w, mediaJSON, reqErr)
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
		plain.respond(w, mediaJSON, http.StatusBadRequest, &graphql.Response{Errors: errs})
		return
	}
	if reqErr := rejectMutationByGET(w, r, opCtx); reqErr != nil {
		plain.respondError(w, mediaJSON, reqErr)
		return
	}
	conn := &connection{address: t.options.Address(ctx), key: t.options.Key(ctx), disconnect: func(code int, reason string) {
		cancel(&closeError{code, reason})
	}}
	if err := t.addConnection(conn); err != nil {
		w.Header().Set("Retry-After", "5")
		plain.respondError(w, mediaJSON, &requestError{http.StatusServiceUnavailable, models.Unavailable, err.Error()})
		return
	}
	defer t.removeConnection(conn)
	t.serve(ctx, cancel, w, func(wake func(), next func(*graphql.Response)) (source Source, errs gqlerror.List) {
		errs = t.recoverPanic(ctx, func() (errs gqlerror.List) {
			source, errs = executeOperation(ctx, exec, opCtx, wake, next)
			return errs
		})
		return source, errs
	})
}

// operationFunc runs an operation. It passes each response to next, or returns a
// Source that supplies the responses.
type operationFunc func(wake func(), next func(*graphql.Response)) (Source, gqlerror.List)

// serve writes each response of an operation as an event, and comments as heartbeats.
// It ends the stream if a write fails or times out.
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

// writeEvents sends the events and heartbeats of an operation until it ends.
func (t *eventStream) writeEvents(ctx context.Context, run operationFunc, send func([]byte)) {
	wakeups := make(chan struct{}, 1)
	wake := func() {
		select {
		case wakeups <- struct{}{}:
		default:
		}
	}
	events, sources := startOperation(ctx, wake, run)
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
		case source = <-sources:
			defer source.Close() // there is at most one source
			events = nil
			wake()
		case <-wakeups:
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

// sourceDone returns a channel that is closed when the stream of a source must end. It
// returns nil without a source: the channel of events is closed then.
func sourceDone(ctx context.Context, source Source) <-chan struct{} {
	if source == nil {
		return nil
	}
	return ctx.Done()
}

// startOperation runs an operation. It returns a channel of its events, and a channel
// that receives the source if the operation continues as one.
func startOperation(ctx context.Context, wake func(), run operationFunc) (<-chan []byte, <-chan Source) {
	events, sources := make(chan []byte), make(chan Source, 1)
	emit := func(text []byte) {
		select {
		case events <- text:
		case <-ctx.Done():
		}
	}
	go func() {
		source, errs := run(wake, func(response *graphql.Response) { emit(nextEvent(MarshalResponse(response))) })
		if source != nil {
			sources <- source
			return
		}
		if len(errs) > 0 {
			emit(nextEvent(MarshalResponse(&graphql.Response{Errors: errs})))
		}
		close(events)
	}()
	return events, sources
}

// drainSource sends the responses that a source has ready. It returns true if the
// stream has ended.
func (t *eventStream) drainSource(ctx context.Context, source Source, send func([]byte)) bool {
	for ctx.Err() == nil {
		var texts []byte
		done := false
		for len(texts) < chunkSize && !done {
			payload, last, errs := t.pullSource(ctx, source)
			if done = last; len(errs) > 0 && ctx.Err() == nil {
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
		if done || len(texts) == 0 {
			return done
		}
	}
	return true
}

// streamEnd returns the last bytes of a stream. There is no complete event when the
// server shuts down, so that the client reconnects.
func streamEnd(cause error) []byte {
	complete := []byte("event: complete\ndata:\n\n")
	if cause == nil {
		return complete
	}
	if closeErr, ok := cause.(*closeError); ok && closeErr.code == closeUnauthorized { //nolint:errorlint // created in this package, never wrapped
		errs := errorList(&requestError{http.StatusUnauthorized, models.Unauthenticated, closeErr.reason})
		return append(nextEvent(MarshalResponse(&graphql.Response{Errors: errs})), complete...)
	}
	return nil
}

// nextEvent encodes a payload as a next event.
func nextEvent(payload []byte) []byte {
	return slices.Concat([]byte("event: next\ndata: "), payload, []byte("\n\n"))
}
