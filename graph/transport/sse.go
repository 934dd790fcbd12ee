package transport

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/models"
)

const heartbeat = 12 * time.Second

// eventStream serves operations as server-sent events, one a connection
// (graphql-sse, distinct connections mode).
type eventStream struct{ *Transports }

// Supports takes requests that accept an event stream.
func (*eventStream) Supports(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// Do streams one operation to its end.
func (t *eventStream) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	plain := &plainHTTP{t.Transports}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	params, refused := readRequest(w, r, t.options.MaxBody)
	if refused != nil {
		plain.refuse(w, typeJSON, refused)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	opCtx, errs := exec.CreateOperationContext(ctx, params)
	if len(errs) > 0 {
		plain.write(w, typeJSON, http.StatusBadRequest, exec.DispatchError(graphql.WithOperationContext(ctx, opCtx), errs))
		return
	}
	if opCtx.Operation.Operation == "mutation" && r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		plain.refuse(w, typeJSON, &refusal{http.StatusMethodNotAllowed, models.MethodNotAllowed, "use POST for mutations"})
		return
	}
	l := &live{address: t.options.Address(ctx), key: t.options.Key(ctx), end: func(int, string) { cancel() }}
	if err := t.join(l); err != nil {
		w.Header().Set("Retry-After", "5")
		plain.refuse(w, typeJSON, &refusal{http.StatusServiceUnavailable, models.Unavailable, err.Error()})
		return
	}
	defer t.leave(l)
	t.stream(ctx, cancel, w, &operation{exec: exec, present: t.options.Present, params: params})
}

// stream writes each response as an event, and comments in between that keep
// the connection alive. A client that does not read is given up.
func (t *eventStream) stream(ctx context.Context, cancel context.CancelFunc, w http.ResponseWriter, o *operation) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(w)
	send := func(text []byte) {
		_ = control.SetWriteDeadline(time.Now().Add(t.options.WriteTimeout)) //nolint:forbidigo // a test's recorder has none; a real connection's deadline
		if _, err := w.Write(text); err != nil || control.Flush() != nil {
			cancel()
		}
	}
	frames := make(chan []byte)
	go func() {
		defer close(frames)
		emit := func(frame []byte) {
			select {
			case frames <- frame:
			case <-ctx.Done():
			}
		}
		errs := o.safely(ctx, t.options.Logger, func(response *graphql.Response) { emit(event(response)) })
		if len(errs) > 0 {
			emit(event(&graphql.Response{Errors: errs}))
		}
	}()
	send([]byte(":\n\n"))
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case frame, ok := <-frames:
			if !ok {
				send([]byte("event: complete\ndata:\n\n"))
				return
			}
			send(frame)
		case <-ticker.C:
			send([]byte(":\n\n"))
		}
	}
}

// event writes a response as a next event.
func event(response *graphql.Response) []byte {
	buffer := getBuffer()
	defer putBuffer(buffer)
	buffer.WriteString("event: next\ndata: ")
	writeResponse(buffer, response)
	buffer.WriteString("\n\n")
	return append([]byte(nil), buffer.Bytes()...)
}
