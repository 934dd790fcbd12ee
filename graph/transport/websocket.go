package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

// Close codes of graphql-transport-ws and of WebSocket.
const (
	closeGoingAway     = websocket.CloseGoingAway
	closeFull          = websocket.CloseTryAgainLater
	closeNormal        = websocket.CloseNormalClosure
	closeBadMessage    = 4400
	closeUnauthorized  = 4401
	closeForbidden     = 4403
	closeNoInit        = 4408
	closeDuplicate     = 4409
	closeSecondInit    = 4429
	readBuffer         = 512 // bytes; what an idle socket keeps
	maxQueued          = 64  // frames that wait for one client
	drainTime          = time.Second
	maxCloseReason     = 120 // bytes
	silentIntervals    = 5   // half ping intervals until a silent peer is dead
	codeTooMany        = "TOO_MANY_OPERATIONS"
	webSocketHandshake = 5 * time.Second
)

// webSocket serves operations over sockets.
type webSocket struct{ *Transports }

// Supports takes requests to upgrade.
func (*webSocket) Supports(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

// Do upgrades the connection and returns: a goroutine of the socket's own reads
// on, so that net/http keeps nothing for it.
func (t *webSocket) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	if offered := websocket.Subprotocols(r); len(offered) > 0 && pick(offered) == "" {
		http.Error(w, "speak graphql-transport-ws or graphql-ws", http.StatusBadRequest)
		return
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: webSocketHandshake, ReadBufferSize: readBuffer, WriteBufferPool: writeBuffers,
		Subprotocols: []string{modern.name, legacy.name}, CheckOrigin: t.options.CheckOrigin,
	}
	ws, err := upgrader.Upgrade(hijackable{w}, r, nil)
	if err != nil {
		return // it has answered
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	s := &socket{
		transports: t.Transports, ws: ws, speaks: protocolOf(ws.Subprotocol()), exec: exec, header: r.Header,
		ctx: ctx, cancel: cancel, queue: make(chan []byte, maxQueued), running: map[string]context.CancelFunc{},
	}
	s.live = &live{address: t.options.Address(ctx), key: t.options.Key(ctx), end: s.close}
	if err := t.join(s.live); err != nil {
		code := closeFull
		if errors.Is(err, errStopped) {
			code = closeGoingAway
		}
		s.close(code, err.Error())
		_ = ws.Close()
		return
	}
	go s.serve()
}

var writeBuffers = &sync.Pool{} //nolint:gochecknoglobals // a pool is shared by its nature

// hijackable lets the upgrader reach the connection behind wrapped writers.
type hijackable struct{ http.ResponseWriter }

// Hijack takes the connection over.
func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack() //nolint:wrapcheck // http.Hijacker's contract
}

// socket is one live WebSocket. One goroutine reads, one writes, and each
// operation has one.
type socket struct {
	transports *Transports
	live       *live
	ws         *websocket.Conn
	speaks     *protocol
	exec       graphql.GraphExecutor
	header     http.Header

	ctx    context.Context //nolint:containedctx // of the socket; operations get theirs from it
	cancel context.CancelCauseFunc
	queue  chan []byte
	group  sync.WaitGroup

	mu      sync.Mutex
	session context.Context //nolint:containedctx // what Init made of the socket's context; nil before
	running map[string]context.CancelFunc
	closed  bool
}

// serve reads messages until the socket ends, and cleans up.
func (s *socket) serve() {
	defer s.transports.leave(s.live)
	o := &s.transports.options
	s.ws.SetReadLimit(o.ReadLimit)
	s.stayAlive()
	s.ws.SetPongHandler(func(string) error { s.stayAlive(); return nil })
	timer := time.AfterFunc(o.InitTimeout, func() {
		if s.sessionContext() == nil {
			s.close(closeNoInit, "Connection initialisation timeout")
		}
	})
	defer timer.Stop()
	s.group.Go(s.write)
	s.read()
	s.close(closeNormal, "")
	s.drain()
	s.group.Wait()
}

// read handles messages one after the other.
func (s *socket) read() {
	for {
		kind, reader, err := s.ws.NextReader()
		if err != nil {
			return
		}
		text, err := io.ReadAll(reader)
		if err != nil {
			return
		}
		s.stayAlive()
		if kind != websocket.TextMessage {
			s.close(closeBadMessage, "Messages must be text")
			return
		}
		if !s.handle(text) {
			return
		}
	}
}

// drain lets the peer read the close frame before the connection goes: what it
// still sends is thrown away for a moment.
func (s *socket) drain() {
	conn := s.ws.NetConn()
	_ = conn.SetReadDeadline(time.Now().Add(drainTime)) //nolint:forbidigo // a real connection's deadline
	_, _ = io.Copy(io.Discard, conn)
	_ = s.ws.Close()
}

// stayAlive puts off the moment at which the peer counts as dead.
func (s *socket) stayAlive() {
	if s.ctx.Err() == nil {
		deadline := time.Now().Add(s.transports.options.PingInterval * silentIntervals / 2) //nolint:forbidigo // a real connection's deadline
		_ = s.ws.SetReadDeadline(deadline)
	}
}

// write sends queued frames and pings. A frame that takes longer than the write
// time ends the socket.
func (s *socket) write() {
	o := &s.transports.options
	ticker := time.NewTicker(o.PingInterval)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-s.ctx.Done():
			return
		case frame := <-s.queue:
			_ = s.ws.SetWriteDeadline(time.Now().Add(o.WriteTimeout)) //nolint:forbidigo // a real connection's deadline
			err = s.ws.WriteMessage(websocket.TextMessage, frame)
		case <-ticker.C:
			err = s.ping()
		}
		if err != nil {
			s.abort(err)
			return
		}
	}
}

// ping asks whether the peer is there, and tells older clients that we are.
func (s *socket) ping() error {
	deadline := time.Now().Add(s.transports.options.WriteTimeout) //nolint:forbidigo // a real connection's deadline
	if keepAlive := s.speaks.keepAlive; keepAlive != "" && s.sessionContext() != nil {
		_ = s.ws.SetWriteDeadline(deadline)
		if err := s.ws.WriteMessage(websocket.TextMessage, []byte(`{"type":"`+keepAlive+`"}`)); err != nil {
			return err //nolint:wrapcheck // only that it failed matters
		}
	}
	return s.ws.WriteControl(websocket.PingMessage, nil, deadline) //nolint:wrapcheck // only that it failed matters
}

// send queues a frame; it waits while the queue is full and gives up with the
// socket.
func (s *socket) send(ctx context.Context, frame []byte) {
	select {
	case s.queue <- frame:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
}

// close tells the peer why the socket ends, and ends it. The first call counts.
func (s *socket) close(code int, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	message := websocket.FormatCloseMessage(code, reason[:min(len(reason), maxCloseReason)])
	deadline := time.Now().Add(drainTime) //nolint:forbidigo // a real connection's deadline
	_ = s.ws.WriteControl(websocket.CloseMessage, message, deadline)
	_ = s.ws.SetReadDeadline(deadline)
	s.cancel(errors.New(reason))
}

// abort ends a socket whose peer cannot be told.
func (s *socket) abort(cause error) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel(cause)
	_ = s.ws.Close()
}

func (s *socket) sessionContext() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// begin runs an operation beside the others, unless its id is taken.
func (s *socket) begin(id string, params *graphql.RawParams) {
	ctx, cancel := context.WithCancel(s.sessionContext())
	s.mu.Lock()
	_, taken := s.running[id]
	full := len(s.running) >= s.transports.options.MaxOperations
	if !taken && !full {
		s.running[id] = cancel
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
		s.group.Go(func() { s.operate(ctx, cancel, id, params) })
	}
}

// operate runs an operation and tells how it ended, unless the client ended it.
func (s *socket) operate(ctx context.Context, cancel context.CancelFunc, id string, params *graphql.RawParams) {
	defer cancel()
	o := &operation{exec: s.exec, present: s.transports.options.Present, params: params}
	errs := s.admit(ctx)
	if errs == nil {
		errs = o.safely(ctx, s.transports.options.Logger, func(response *graphql.Response) {
			s.send(ctx, s.speaks.next(id, response))
		})
	}
	if ctx.Err() != nil {
		return
	}
	s.forget(id)
	if len(errs) > 0 {
		s.send(s.ctx, s.speaks.fail(id, errs))
		return
	}
	s.send(s.ctx, s.speaks.complete(id))
}

func (s *socket) admit(ctx context.Context) gqlerror.List {
	if s.transports.options.Before == nil {
		return nil
	}
	if err := s.transports.options.Before(ctx); err != nil {
		return gqlerror.List{s.transports.options.Present(ctx, err)}
	}
	return nil
}

// forget frees an operation's id and returns how to stop it; nil when it is not
// running.
func (s *socket) forget(id string) context.CancelFunc {
	s.mu.Lock()
	defer s.mu.Unlock()
	cancel := s.running[id]
	delete(s.running, id)
	return cancel
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
		if s.speaks.refused != nil {
			s.sendFirst(s.speaks.refused(o.Present(s.ctx, err)))
		}
		code := closeForbidden
		if models.CodeOf(err) == models.Internal {
			code = websocket.CloseInternalServerErr
		}
		s.close(code, "Forbidden")
		return false
	}
	if err := s.transports.identify(s.live, o.Key(session)); err != nil {
		s.close(closeFull, err.Error())
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

// sendFirst writes the frame that tells an older client why it was refused.
// Nothing is queued before a session, so the writer goroutine is idle.
func (s *socket) sendFirst(frame []byte) {
	_ = s.ws.SetWriteDeadline(time.Now().Add(s.transports.options.WriteTimeout)) //nolint:forbidigo // a real connection's deadline
	_ = s.ws.WriteMessage(websocket.TextMessage, frame)
}
