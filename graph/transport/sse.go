package transport

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

// eventStream serves operations as server-sent events, one operation per connection
// (the distinct connections mode of graphql-sse).
type eventStream struct{ *Transports }

// serve streams the responses of one operation until it ends.
func (t *eventStream) serve(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor, opCtx *graphql.OperationContext) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	conn := &connection{address: t.options.Address(ctx), key: t.options.Key(ctx)}
	conn.close = func(code int, reason string) { cancel(&closeError{code, reason}) }
	conn.end = conn.close
	if opCtx.Operation.Operation == ast.Mutation {
		conn.end = func(int, string) {} // the stream ends with the response
	}
	if err := t.addConnection(conn); err != nil {
		respondError(w, mediaJSON, rejectStream(w, err))
		return
	}
	defer t.removeConnection(conn)
	stream := &streamWriter{eventStream: t, w: w, ctx: ctx, cancel: cancel, control: http.NewResponseController(w)}
	if opCtx.Operation.Operation == ast.Subscription {
		stream.send(nil) // the client waits for the start of the stream, not for the first event
	}
	t.writeEvents(ctx, stream, func(wake func(), next func(*graphql.Response)) (source Source, errs gqlerror.List) {
		errs = t.recoverPanic(ctx, func() (errs gqlerror.List) {
			source, errs = executeOperation(ctx, exec, opCtx, wake, next)
			return errs
		})
		return source, errs
	})
	stream.send(streamEnd(context.Cause(ctx)))
}

// streamWriter writes an event stream. The first write also sends the headers, so that a
// query or mutation has the same ones as in a JSON response, unless it takes longer than
// a heartbeat.
type streamWriter struct {
	*eventStream

	w       http.ResponseWriter
	control *http.ResponseController
	ctx     context.Context //nolint:containedctx // the lifetime of the stream
	cancel  context.CancelCauseFunc
	started bool
}

// sendResponse writes a response as an event.
func (s *streamWriter) sendResponse(response *graphql.Response) {
	if !s.started {
		setRetryAfter(s.w.Header(), response.Errors)
	}
	s.send(nextEvent(MarshalResponse(response)))
}

// send writes text. It ends the stream if a write fails or times out.
func (s *streamWriter) send(text []byte) {
	if !s.started {
		s.started = true
		s.setHeaders()
		text = append([]byte(heartbeat), text...)
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(s.options.WriteTimeout)) //nolint:forbidigo // a real connection's deadline
	_, err := s.w.Write(text)
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		if s.ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded) {
			s.cutOff.Add(1)
		}
		s.cancel(err)
	}
}

func (s *streamWriter) setHeaders() {
	h := s.w.Header()
	h.Set("Content-Type", mediaEventStream+"; charset=utf-8")
	h.Set("X-Accel-Buffering", "no")
	if s.options.AddHeaders != nil {
		s.options.AddHeaders(s.ctx, h)
	}
}

// heartbeat is a comment, which clients ignore.
const heartbeat = ":\n\n"

// rejectStream returns the response to a stream that could not be added.
func rejectStream(w http.ResponseWriter, err error) *requestError {
	if errors.Is(err, errKeyRevoked) {
		return &requestError{status: http.StatusUnauthorized, code: models.Unauthenticated, message: err.Error()}
	}
	w.Header().Set("Retry-After", "5")
	return &requestError{status: http.StatusServiceUnavailable, code: models.Unavailable, message: err.Error()}
}

// operationFunc runs an operation. It passes each response to next, or returns a
// Source that supplies the responses.
type operationFunc func(wake func(), next func(*graphql.Response)) (Source, gqlerror.List)

// writeEvents sends the events and heartbeats of an operation until it ends.
func (t *eventStream) writeEvents(ctx context.Context, stream *streamWriter, run operationFunc) {
	wakeups := make(chan struct{}, 1)
	wake := func() {
		select {
		case wakeups <- struct{}{}:
		default:
		}
	}
	responses, sources := startOperation(ctx, wake, run)
	var source Source
	ticker := time.NewTicker(t.options.PingInterval / 2)
	defer ticker.Stop()
	for {
		select {
		case response, more := <-responses:
			if !more {
				return
			}
			stream.sendResponse(response)
		case source = <-sources:
			defer source.Close() // there is at most one source
			responses = nil
			wake()
		case <-wakeups:
			if source != nil && t.drainSource(ctx, source, stream.send) {
				return
			}
		case <-sourceDone(ctx, source):
			return
		case <-ticker.C:
			stream.send([]byte(heartbeat))
		}
	}
}

// sourceDone returns a channel that is closed when the stream of a source must end. It
// returns nil without a source: the channel of responses is closed then.
func sourceDone(ctx context.Context, source Source) <-chan struct{} {
	if source == nil {
		return nil
	}
	return ctx.Done()
}

// startOperation runs an operation. It returns a channel of its responses, and a channel
// that receives the source if the operation continues as one.
func startOperation(ctx context.Context, wake func(), run operationFunc) (<-chan *graphql.Response, <-chan Source) {
	responses, sources := make(chan *graphql.Response), make(chan Source, 1)
	emit := func(response *graphql.Response) {
		select {
		case responses <- response:
		case <-ctx.Done():
		}
	}
	go func() {
		source, errs := run(wake, emit)
		if source != nil {
			sources <- source
			return
		}
		if len(errs) > 0 {
			emit(&graphql.Response{Errors: errs})
		}
		close(responses)
	}()
	return responses, sources
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
		errs := errorList(&requestError{status: http.StatusUnauthorized, code: models.Unauthenticated, message: closeErr.reason})
		return append(nextEvent(MarshalResponse(&graphql.Response{Errors: errs})), complete...)
	}
	return nil
}

// nextEvent encodes a payload as a next event.
func nextEvent(payload []byte) []byte {
	return slices.Concat([]byte("event: next\ndata: "), payload, []byte("\n\n"))
}
