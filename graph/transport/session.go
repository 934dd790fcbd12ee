package transport

import (
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

const codeTooMany = "TOO_MANY_OPERATIONS"

// running is an operation under way on a socket.
type running struct {
	id     string
	before []byte // see protocol.before
	stop   context.CancelFunc
	source Source // once it goes on without a goroutine; guarded by the socket's mu, as due
	due    bool   // the source may have something
}

// ready reports whether the operation's source is to be asked. The socket's mu
// is held.
func (r *running) ready() bool { return r.due && r.source != nil }

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
			s.send(s.ctx, said{text: s.speaks.refused(presented)})
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
		s.send(s.ctx, said{text: []byte(frame)})
	}
	return true
}

// begin runs an operation beside the others, unless its id is taken.
func (s *socket) begin(id string, params *graphql.RawParams) {
	ctx, stop := context.WithCancel(s.sessionContext())
	this := &running{id: id, before: s.speaks.before(id), stop: stop}
	taken, full := s.enter(this)
	switch {
	case taken:
		this.stop()
		s.close(closeDuplicate, "Subscriber for "+id+" already exists")
	case full:
		this.stop()
		s.send(s.ctx, said{text: s.speaks.fail(id, gqlerror.List{{
			Message: "too many operations on this socket", Extensions: map[string]any{"code": codeTooMany},
		}})})
	default:
		s.operations.Go(func() { s.operate(ctx, this, params) })
	}
}

// enter puts an operation among those that run if it may be there.
func (s *socket) enter(this *running) (taken, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken = s.find(this.id) != nil
	full = len(s.running) >= s.transports.options.MaxOperations
	if !taken && !full {
		s.running = append(s.running, this)
	}
	return taken, full
}

// find returns the operation with an id, nil for none. The lock is held.
func (s *socket) find(id string) *running {
	for _, this := range s.running {
		if this.id == id {
			return this
		}
	}
	return nil
}

// operate runs an operation and tells how it ended, unless it goes on as a
// source or the client ended it.
func (s *socket) operate(ctx context.Context, this *running, params *graphql.RawParams) {
	ctx = graphql.StartOperationTrace(ctx)
	var source Source
	errs := s.transports.contained(ctx, func() (errs gqlerror.List) {
		if before := s.transports.options.Before; before != nil {
			if err := before(ctx); err != nil {
				return gqlerror.List{s.transports.options.Present(ctx, err)}
			}
		}
		opCtx, errs := prepare(ctx, s.exec, params)
		if errs != nil {
			return errs
		}
		source, errs = stream(ctx, s.exec, opCtx, func() { s.awaken(this) }, func(response *graphql.Response) {
			s.send(ctx, said{text: s.speaks.next(this.id, response), by: this})
		})
		return errs
	})
	if source != nil {
		s.goOn(this, source)
		return
	}
	s.send(ctx, said{text: s.speaks.last(this.id, errs), by: this, last: true})
	this.stop()
}

// goOn has an operation go on as a source, unless it has ended meanwhile.
func (s *socket) goOn(this *running, source Source) {
	s.mu.Lock()
	goesOn := s.find(this.id) == this
	if goesOn {
		this.source, this.due = source, true
		s.start()
	}
	s.mu.Unlock()
	this.stop() // a source has no use for it
	if !goesOn {
		source.Close()
	}
}

// awaken has an operation's source asked.
func (s *socket) awaken(this *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	this.due = true
	s.start()
}

// stop ends the operation with an id, if there is one. Nothing is said of it, or
// of one before it, any more: the id may be used again at once.
func (s *socket) stop(id string) {
	s.mu.Lock()
	this := s.find(id)
	s.mu.Unlock()
	if this != nil {
		s.end(this)
	}
	s.unsay(id)
}

// endAll ends every operation. None may begin meanwhile.
func (s *socket) endAll() {
	s.mu.Lock()
	all := slices.Clone(s.running)
	s.mu.Unlock()
	for _, this := range all {
		s.end(this)
	}
}

// end ends an operation and frees its id. It reports false when it had ended
// before; the id may be another operation's by now.
func (s *socket) end(this *running) bool {
	s.mu.Lock()
	ended := s.remove(this)
	source := this.source
	s.mu.Unlock()
	if !ended {
		return false
	}
	this.stop()
	if source != nil {
		source.Close()
	}
	return true
}

// remove takes an operation from those that run, and reports whether it was one
// of them. The lock is held.
func (s *socket) remove(this *running) bool {
	at := slices.Index(s.running, this)
	if at >= 0 {
		s.running = slices.Delete(s.running, at, at+1)
	}
	return at >= 0
}
