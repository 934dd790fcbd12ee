package transport

import (
	"bytes"
	"context"
	"net/http"
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
	t.stream(ctx, cancel, w, func(next func(*graphql.Response)) gqlerror.List {
		return t.contained(ctx, func() gqlerror.List { return stream(ctx, exec, opCtx, next) })
	})
}

// stream writes each response of run as an event, and comments in between that
// show life. A client that does not read is given up.
func (t *eventStream) stream(ctx context.Context, cancel context.CancelCauseFunc, w http.ResponseWriter, run func(func(*graphql.Response)) gqlerror.List) {
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
			cancel(err)
		}
	}
	events := make(chan []byte)
	go func() {
		defer close(events)
		emit := func(text []byte) {
			select {
			case events <- text:
			case <-ctx.Done():
			}
		}
		if errs := run(func(response *graphql.Response) { emit(event(response)) }); len(errs) > 0 {
			emit(event(&graphql.Response{Errors: errs}))
		}
	}()
	send([]byte(":\n\n"))
	ticker := time.NewTicker(t.options.PingInterval / 2)
	defer ticker.Stop()
	for {
		select {
		case text, ok := <-events:
			if !ok {
				send(last(context.Cause(ctx)))
				return
			}
			send(text)
		case <-ticker.C:
			send([]byte(":\n\n"))
		}
	}
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
		return append(event(&graphql.Response{Errors: refused}), complete...)
	}
	return nil
}

// event writes a response as a next event.
func event(response *graphql.Response) []byte {
	buffer := getBuffer()
	defer putBuffer(buffer)
	buffer.WriteString("event: next\ndata: ")
	writeResponse(buffer, response)
	buffer.WriteString("\n\n")
	return bytes.Clone(buffer.Bytes())
}
