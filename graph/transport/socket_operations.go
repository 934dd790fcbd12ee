package transport

import (
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

const codeTooManyOperations = "TOO_MANY_OPERATIONS"

// operation is an operation under way on a socket.
type operation struct {
	id         string
	dataPrefix []byte // see protocol.before
	cancel     context.CancelFunc
	source     Source // once it goes on without a goroutine; guarded by the socket's mu, as due
	pending    bool   // the source may have something
}

// ready reports whether the operation's source is to be asked. The socket's mu
// is held.
func (r *operation) ready() bool { return r.pending && r.source != nil }

func (s *socket) sessionContext() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// handleInit opens the session: operations may begin. It reports whether the
// socket goes on.
func (s *socket) handleInit(payload map[string]any) bool {
	if s.sessionContext() != nil {
		s.close(closeSecondInit, "Too many initialisation requests")
		return false
	}
	o := &s.transports.options
	session, err := o.Init(s.ctx, payload)
	if err != nil {
		presented := o.PresentError(s.ctx, err)
		if s.protocol.connectionError != nil {
			s.send(s.ctx, outgoingMessage{text: s.protocol.connectionError(presented)})
		}
		if models.CodeOf(err) == models.Internal {
			s.close(closeInternal, presented.Message)
			return false
		}
		s.close(closeForbidden, "Forbidden")
		return false
	}
	if err := s.transports.setKey(s.connection, o.Key(session)); err != nil {
		s.close(closeCodeFor(err), err.Error())
		return false
	}
	s.mu.Lock()
	s.session = session
	s.mu.Unlock()
	for _, frame := range s.protocol.ackMessages {
		s.send(s.ctx, outgoingMessage{text: []byte(frame)})
	}
	return true
}

// startOperation runs an operation beside the others, unless its id is taken.
func (s *socket) startOperation(id string, params *graphql.RawParams) {
	ctx, stop := context.WithCancel(s.sessionContext())
	this := &operation{id: id, dataPrefix: s.protocol.dataPrefix(id), cancel: stop}
	taken, full := s.addOperation(this)
	switch {
	case taken:
		this.cancel()
		s.close(closeDuplicateID, "Subscriber for "+id+" already exists")
	case full:
		this.cancel()
		s.send(s.ctx, outgoingMessage{text: s.protocol.errorMessage(id, gqlerror.List{{
			Message: "too many operations on this socket", Extensions: map[string]any{"code": codeTooManyOperations},
		}})})
	default:
		s.operationsWG.Go(func() { s.runOperation(ctx, this, params) })
	}
}

// addOperation puts an operation among those that run if it may be there.
func (s *socket) addOperation(this *operation) (taken, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken = s.findOperation(this.id) != nil
	full = len(s.activeOperations) >= s.transports.options.MaxOperations
	if !taken && !full {
		s.activeOperations = append(s.activeOperations, this)
	}
	return taken, full
}

// findOperation returns the operation with an id, nil for none. The lock is held.
func (s *socket) findOperation(id string) *operation {
	for _, this := range s.activeOperations {
		if this.id == id {
			return this
		}
	}
	return nil
}

// runOperation runs an operation and tells how it ended, unless it goes on as a
// source or the client ended it.
func (s *socket) runOperation(ctx context.Context, this *operation, params *graphql.RawParams) {
	ctx = graphql.StartOperationTrace(ctx)
	var source Source
	errs := s.transports.recoverPanic(ctx, func() (errs gqlerror.List) {
		if before := s.transports.options.BeforeOperation; before != nil {
			if err := before(ctx); err != nil {
				return gqlerror.List{s.transports.options.PresentError(ctx, err)}
			}
		}
		opCtx, errs := prepareOperation(ctx, s.exec, params)
		if errs != nil {
			return errs
		}
		source, errs = executeOperation(ctx, s.exec, opCtx, func() { s.wakeOperation(this) }, func(response *graphql.Response) {
			s.send(ctx, outgoingMessage{text: s.protocol.dataMessage(this.id, response), operation: this})
		})
		return errs
	})
	if source != nil {
		s.attachSource(this, source)
		return
	}
	s.send(ctx, outgoingMessage{text: s.protocol.endMessage(this.id, errs), operation: this, final: true})
	this.cancel()
}

// attachSource has an operation go on as a source, unless it has ended meanwhile.
func (s *socket) attachSource(this *operation, source Source) {
	s.mu.Lock()
	goesOn := s.findOperation(this.id) == this
	if goesOn {
		this.source, this.pending = source, true
		s.startWriter()
	}
	s.mu.Unlock()
	this.cancel() // a source has no use for it
	if !goesOn {
		source.Close()
	}
}

// wakeOperation has an operation's source asked.
func (s *socket) wakeOperation(this *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	this.pending = true
	s.startWriter()
}

// stopOperation ends the operation with an id, if there is one. Nothing is said of it, or
// of one before it, any more: the id may be used again at once.
func (s *socket) stopOperation(id string) {
	s.mu.Lock()
	this := s.findOperation(id)
	s.mu.Unlock()
	if this != nil {
		s.endOperation(this)
	}
	s.dropQueued(id)
}

// endAllOperations ends every operation. None may begin meanwhile.
func (s *socket) endAllOperations() {
	s.mu.Lock()
	all := slices.Clone(s.activeOperations)
	s.mu.Unlock()
	for _, this := range all {
		s.endOperation(this)
	}
}

// endOperation ends an operation and frees its id. It reports false when it had ended
// before; the id may be another operation's by now.
func (s *socket) endOperation(this *operation) bool {
	s.mu.Lock()
	ended := s.removeOperation(this)
	source := this.source
	s.mu.Unlock()
	if !ended {
		return false
	}
	this.cancel()
	if source != nil {
		source.Close()
	}
	return true
}

// removeOperation takes an operation from those that run, and reports whether it was one
// of them. The lock is held.
func (s *socket) removeOperation(this *operation) bool {
	at := slices.Index(s.activeOperations, this)
	if at >= 0 {
		s.activeOperations = slices.Delete(s.activeOperations, at, at+1)
	}
	return at >= 0
}
