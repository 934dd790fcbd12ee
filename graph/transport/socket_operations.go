package transport

import (
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

const codeTooManyOperations = "TOO_MANY_OPERATIONS"

// operation is a running operation of a socket.
type operation struct {
	id         string
	dataPrefix []byte // see protocol.dataPrefix
	cancel     context.CancelFunc
	mutation   bool   // it is executed even if the socket ends; guarded by socket.mu
	source     Source // set once the operation is attached; guarded by socket.mu
	pending    bool   // the source may have a response; guarded by socket.mu
}

// ready reports whether the operation's source must be polled. The caller holds the
// socket's mu.
func (op *operation) ready() bool { return op.pending && op.source != nil }

// startOperation starts an operation in its own goroutine. It closes the socket if the
// id is in use, and sends an error if there are too many operations. It does nothing on a
// socket that is ending.
func (s *socket) startOperation(id string, params *graphql.RawParams) {
	ctx, stop := context.WithCancel(s.sessionContext())
	op := &operation{id: id, dataPrefix: s.protocol.dataPrefix(id), cancel: stop}
	duplicate, full, ending := s.addOperation(op)
	switch {
	case ending:
		op.cancel()
	case duplicate:
		op.cancel()
		s.close(closeDuplicateID, "Subscriber for "+id+" already exists")
	case full:
		op.cancel()
		s.send(s.ctx, outgoingMessage{text: s.protocol.errorMessage(id, gqlerror.List{{
			Message: "too many operations on this socket", Extensions: map[string]any{"code": codeTooManyOperations},
		}})})
	default:
		s.operationsWG.Go(func() { s.runOperation(ctx, op, params) })
	}
}

// addOperation adds an operation to the active ones. It does not if its id is in use,
// the limit is reached or the socket is ending.
func (s *socket) addOperation(op *operation) (duplicate, full, ending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	duplicate = s.findOperation(op.id) != nil
	full = len(s.activeOperations) >= s.transports.options.MaxOperations
	ending = s.ending != nil
	if !duplicate && !full && !ending {
		s.activeOperations = append(s.activeOperations, op)
	}
	return duplicate, full, ending
}

// beginOperation marks an operation that is about to be executed. It returns false if
// the operation has been stopped.
func (s *socket) beginOperation(op *operation, kind ast.Operation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	op.mutation = kind == ast.Mutation
	return s.findOperation(op.id) == op
}

// findOperation returns the active operation with an id, or nil. The caller holds mu.
func (s *socket) findOperation(id string) *operation {
	for _, op := range s.activeOperations {
		if op.id == id {
			return op
		}
	}
	return nil
}

// runOperation executes an operation and sends its responses. The last message is sent
// here too, unless the operation continues as a source or the client has stopped it.
func (s *socket) runOperation(ctx context.Context, op *operation, params *graphql.RawParams) {
	ctx = graphql.StartOperationTrace(ctx)
	var source Source
	errs := s.transports.recoverPanic(ctx, func() (errs gqlerror.List) {
		if before := s.transports.options.BeforeOperation; before != nil {
			if err := before(ctx); err != nil {
				return gqlerror.List{s.transports.options.PresentError(ctx, err)}
			}
		}
		opCtx, errs := prepareOperation(ctx, s.exec, params)
		if errs != nil || !s.beginOperation(op, opCtx.Operation.Operation) {
			return errs
		}
		source, errs = executeOperation(ctx, s.exec, opCtx, func() { s.wakeOperation(op) }, func(response *graphql.Response) {
			s.send(ctx, outgoingMessage{text: s.protocol.dataMessage(op.id, response), operation: op})
		})
		return errs
	})
	if source != nil {
		s.attachSource(op, source)
		return
	}
	s.send(ctx, outgoingMessage{text: s.protocol.endMessage(op.id, errs), operation: op, final: true})
	op.cancel()
}

// attachSource continues an operation as a source. It closes the source if the
// operation has ended.
func (s *socket) attachSource(op *operation, source Source) {
	s.mu.Lock()
	active := s.findOperation(op.id) == op
	if active {
		op.source, op.pending = source, true
		s.startWriter()
	}
	s.mu.Unlock()
	op.cancel() // sources do not use the operation's context
	if !active {
		source.Close()
	}
}

// wakeOperation makes the writer poll an operation's source.
func (s *socket) wakeOperation(op *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	op.pending = true
	s.startWriter()
}

// stopOperation stops the operation with an id at the client's request and drops its
// queued messages. The client can reuse the id at once.
func (s *socket) stopOperation(id string) {
	s.mu.Lock()
	op := s.findOperation(id)
	s.mu.Unlock()
	if op != nil {
		s.endOperation(op)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropQueued(func(op *operation) bool { return op.id == id })
}

// endAllOperations ends every operation. No operation may start during the call.
func (s *socket) endAllOperations() {
	s.mu.Lock()
	active, ended := slices.Clone(s.activeOperations), s.endedOperations
	s.mu.Unlock()
	for _, op := range active {
		s.endOperation(op)
	}
	for _, op := range ended {
		if op.source != nil {
			op.source.Close()
		}
	}
}

// endOperation ends an operation and releases its id. It returns false if the
// operation has already ended; another operation may then have the same id.
func (s *socket) endOperation(op *operation) bool {
	s.mu.Lock()
	ended := s.removeOperation(op)
	source := op.source
	s.mu.Unlock()
	if !ended {
		return false
	}
	op.cancel()
	if source != nil {
		source.Close()
	}
	return true
}

// removeOperation removes an operation from the active ones and reports whether it was
// one of them. The caller holds mu.
func (s *socket) removeOperation(op *operation) bool {
	i := slices.Index(s.activeOperations, op)
	if i >= 0 {
		s.activeOperations = slices.Delete(s.activeOperations, i, i+1)
	}
	if s.ending != nil {
		s.startWriter() // it closes the socket after the last operation
	}
	return i >= 0
}
