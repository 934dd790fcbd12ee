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
		plain.refuse(w, typeJSON, refused)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	var opCtx *graphql.OperationContext
	errs := t.contained(ctx, func() (errs gqlerror.List) {
		opCtx, errs = prepare(ctx, exec, params)
		return errs
	})
	if errs != nil {
		plain.write(w, typeJSON, http.StatusBadRequest, &graphql.Response{Errors: errs})
		return
	}
	if refused := mutationByGet(w, r, opCtx); refused != nil {
		plain.refuse(w, typeJSON, refused)
		return
	}
	l := &live{address: t.options.Address(ctx), key: t.options.Key(ctx), end: func(code int, reason string) {
		cancel(&farewell{code, reason})
	}}
	if err := t.join(l); err != nil {
		w.Header().Set("Retry-After", "5")
		plain.refuse(w, typeJSON, &refusal{http.StatusServiceUnavailable, models.Unavailable, err.Error()})
		return
	}
	defer t.leave(l)
	t.stream(ctx, cancel, w, func(wake func(), next func(*graphql.Response)) (source Source, errs gqlerror.List) {
		errs = t.contained(ctx, func() (errs gqlerror.List) {
			source, errs = stream(ctx, exec, opCtx, wake, next)
			return errs
		})
		return source, errs
	})
}

// beginning runs an operation. Its responses are handed to next, unless it goes
// on as a source.
type beginning func(wake func(), next func(*graphql.Response)) (Source, gqlerror.List)

// stream writes each response of an operation as an event, and comments in
// between that show life. A client that does not read is given up.
func (t *eventStream) stream(ctx context.Context, cancel context.CancelCauseFunc, w http.ResponseWriter, run beginning) {
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
	t.follow(ctx, run, send)
	send(last(context.Cause(ctx)))
}

// follow hands out the events of an operation to its end.
func (t *eventStream) follow(ctx context.Context, run beginning, send func([]byte)) {
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	events, handed := begin(ctx, wake, run)
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
			if source != nil && t.pour(ctx, source, send) {
				return
			}
		case <-ended(ctx, source):
			return
		case <-ticker.C:
			send([]byte(":\n\n"))
		}
	}
}

// ended tells when the stream of a source is at its end. Without a source it is
// whoever runs the operation that says so.
func ended(ctx context.Context, source Source) <-chan struct{} {
	if source == nil {
		return nil
	}
	return ctx.Done()
}

// begin runs an operation and returns its events, and the source that it goes
// on as, if it does.
func begin(ctx context.Context, wake func(), run beginning) (<-chan []byte, <-chan Source) {
	events, handed := make(chan []byte), make(chan Source, 1)
	emit := func(text []byte) {
		select {
		case events <- text:
		case <-ctx.Done():
		}
	}
	go func() {
		source, errs := run(wake, func(response *graphql.Response) { emit(event(Payload(response))) })
		if source != nil {
			handed <- source
			return
		}
		if len(errs) > 0 {
			emit(event(Payload(&graphql.Response{Errors: errs})))
		}
		close(events)
	}()
	return events, handed
}

// pour hands out what a source has, and reports whether it is over.
func (t *eventStream) pour(ctx context.Context, source Source, send func([]byte)) bool {
	for ctx.Err() == nil {
		var texts []byte
		over := false
		for len(texts) < chunk && !over {
			payload, isOver, errs := t.ask(ctx, source)
			if over = isOver; len(errs) > 0 && ctx.Err() == nil {
				payload = Payload(&graphql.Response{Errors: errs})
			}
			if payload == nil {
				break
			}
			texts = append(texts, event(payload)...)
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

// last is how a stream ends. One that the server cuts off because it stops has
// no complete event: the client sees that it was cut and connects again.
func last(cause error) []byte {
	complete := []byte("event: complete\ndata:\n\n")
	if cause == nil {
		return complete
	}
	if end, ok := cause.(*farewell); ok && end.code == closeUnauthorized { //nolint:errorlint // made here, never wrapped
		refused := errorsOf(&refusal{http.StatusUnauthorized, models.Unauthenticated, end.reason})
		return append(event(Payload(&graphql.Response{Errors: refused})), complete...)
	}
	return nil
}

// event makes a payload a next event.
func event(payload []byte) []byte {
	return slices.Concat([]byte("event: next\ndata: "), payload, []byte("\n\n"))
}
