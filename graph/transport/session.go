package transport

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

const codeTooMany = "TOO_MANY_OPERATIONS"

// running is an operation under way on a socket.
type running struct{ stop context.CancelFunc }

func (s *socket) sessionContext() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// initialise opens the session: operations may begin. It reports whether the
// socket goes on.
func (s *socket) initialise(payload map[string]any) bool {
	if s.sessionContext() != nil {
		s.close(closeSecondInit, "Too many initialisation requests")
		return false
	}
	o := &s.transports.options
	session, err := o.Init(s.ctx, payload)
	if err != nil {
		presented := o.Present(s.ctx, err)
		if s.speaks.refused != nil {
			s.send(s.ctx, s.speaks.refused(presented))
		}
		if models.CodeOf(err) == models.Internal {
			s.close(closeInternal, presented.Message)
			return false
		}
		s.close(closeForbidden, "Forbidden")
		return false
	}
	if err := s.transports.identify(s.live, o.Key(session)); err != nil {
		s.close(closeCode(err), err.Error())
		return false
	}
	s.mu.Lock()
	s.session = session
	s.mu.Unlock()
	for _, frame := range s.speaks.ack {
		s.send(s.ctx, []byte(frame))
	}
	return true
}

// begin runs an operation beside the others, unless its id is taken.
func (s *socket) begin(id string, params *graphql.RawParams) {
	ctx, cancel := context.WithCancel(s.sessionContext())
	this := &running{stop: cancel}
	s.mu.Lock()
	_, taken := s.running[id]
	full := len(s.running) >= s.transports.options.MaxOperations
	if !taken && !full {
		s.running[id] = this
	}
	s.mu.Unlock()
	switch {
	case taken:
		cancel()
		s.close(closeDuplicate, "Subscriber for "+id+" already exists")
	case full:
		cancel()
		s.send(s.ctx, s.speaks.fail(id, gqlerror.List{{
			Message: "too many operations on this socket", Extensions: map[string]any{"code": codeTooMany},
		}}))
	default:
		params.Headers = s.header
		s.operations.Go(func() {
			defer cancel()
			s.operate(ctx, this, id, params)
		})
	}
}

// operate runs an operation and tells how it ended, unless the client ended it.
func (s *socket) operate(ctx context.Context, this *running, id string, params *graphql.RawParams) {
	ctx = graphql.StartOperationTrace(ctx)
	errs := s.transports.contained(ctx, func() gqlerror.List {
		if before := s.transports.options.Before; before != nil {
			if err := before(ctx); err != nil {
				return gqlerror.List{s.transports.options.Present(ctx, err)}
			}
		}
		opCtx, errs := prepare(ctx, s.exec, params)
		if errs != nil {
			return errs
		}
		return stream(ctx, s.exec, opCtx, func(response *graphql.Response) { s.send(ctx, s.speaks.next(id, response)) })
	})
	if !s.finish(id, this) || ctx.Err() != nil {
		return
	}
	if len(errs) > 0 {
		s.send(s.ctx, s.speaks.fail(id, errs)) //nolint:contextcheck // the operation has ended, the socket goes on
		return
	}
	s.send(s.ctx, s.speaks.complete(id)) //nolint:contextcheck // as above
}

// finish frees an operation's id. It reports false when the client did so
// before; the id may be another operation's by now.
func (s *socket) finish(id string, this *running) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[id] != this {
		return false
	}
	delete(s.running, id)
	return true
}

// stop ends the operation with an id, if there is one.
func (s *socket) stop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if this := s.running[id]; this != nil {
		this.stop()
		delete(s.running, id)
	}
}
