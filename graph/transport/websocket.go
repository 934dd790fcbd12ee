package transport

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/gorilla/websocket"

	"agentmarket.space/server/models"
)

// Close codes of graphql-transport-ws and of WebSocket.
const (
	closeGoingAway         = websocket.CloseGoingAway
	closeTryAgainLater     = websocket.CloseTryAgainLater
	closeNormal            = websocket.CloseNormalClosure
	closeNotText           = websocket.CloseUnsupportedData
	closeNotUTF8           = websocket.CloseInvalidFramePayloadData
	closeInternal          = websocket.CloseInternalServerErr
	closeBadMessage        = 4400
	closeUnauthorized      = 4401
	closeForbidden         = 4403
	closeInitTimeout       = 4408
	closeDuplicateID       = 4409
	closeSecondInit        = 4429
	closeWithoutFrame      = 0   // send no close frame
	readBufferSize         = 256 // bytes per idle socket
	drainTimeout           = time.Second
	maxSilentHalfIntervals = 5 // half ping intervals without a sign of life until a peer times out
	handshakeTimeout       = 5 * time.Second
)

// webSocket serves operations over WebSocket connections.
type webSocket struct{ *Transports }

// Supports reports whether r is a WebSocket handshake.
func (*webSocket) Supports(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

// Do upgrades the connection, starts a goroutine that reads from it, and returns, so
// that net/http can release the request's memory.
func (t *webSocket) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	if offered := websocket.Subprotocols(r); len(offered) > 0 && negotiateProtocol(offered) == "" {
		WriteError(w, r, http.StatusBadRequest, errorList(badRequest("unsupported subprotocol: use graphql-transport-ws or graphql-ws"))[0])
		return
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: handshakeTimeout, ReadBufferSize: readBufferSize, WriteBufferPool: writeBufferPool,
		Subprotocols: []string{graphqlTransportWS.name, subscriptionsTransportWS.name}, CheckOrigin: t.options.CheckOrigin,
		Error: rejectHandshake,
	}
	hijacked := &hijackWriter{ResponseWriter: w}
	ws, err := upgrader.Upgrade(hijacked, r, nil)
	if err != nil {
		return // Upgrade has written the response
	}
	hijacked.conn.upgraded = true
	s := &socket{transports: t.Transports, ws: ws, conn: hijacked.conn, protocol: protocolByName(ws.Subprotocol()), exec: exec}
	s.open(context.WithoutCancel(r.Context()))
	if err := t.addConnection(s.connection); err != nil {
		s.close(closeCodeFor(err), err.Error())
		go s.drain()
		return
	}
	go s.readLoop()
}

// rejectHandshake responds to an invalid handshake with a GraphQL error.
func rejectHandshake(w http.ResponseWriter, r *http.Request, status int, reason error) {
	rejection := &requestError{status: status, code: models.InvalidInput, message: reason.Error()}
	switch status {
	case http.StatusForbidden:
		rejection.code, rejection.message = models.Forbidden, "cross-origin request blocked"
	case http.StatusMethodNotAllowed:
		rejection.code = models.MethodNotAllowed
		w.Header().Set("Allow", "GET")
	case http.StatusInternalServerError:
		rejection.code, rejection.message = models.Internal, "internal error"
	}
	w.Header().Set("Sec-WebSocket-Version", "13")
	WriteError(w, r, status, errorList(rejection)[0])
}

var writeBufferPool = &sync.Pool{} //nolint:gochecknoglobals // a pool must be shared

// socket is an open WebSocket. One goroutine reads messages. Another one writes and
// exists only while there is something to write. The socket ends when its context
// does; the cause of the context is a *closeError if a close frame must be sent.
type socket struct {
	socketWriter
	transports *Transports
	connection *connection
	ws         *websocket.Conn // for reading only
	conn       *socketConn
	protocol   *protocol
	exec       graphql.GraphExecutor

	ctx          context.Context //nolint:containedctx // the lifetime of the socket
	cancel       context.CancelCauseFunc
	operationsWG sync.WaitGroup // operations with a goroutine
	openedAt     time.Duration  // see Transports.now
	silentChecks atomic.Int64   // checks since the last sign of life of the peer
	lastPing     time.Duration  // guarded by Transports.mu

	session          context.Context //nolint:containedctx // returned by Options.Init, nil before that; guarded by mu
	ending           *closeError     // how to close the socket once its mutations are answered, see end; guarded by mu
	activeOperations []*operation    // guarded by mu
	endedOperations  []*operation    // ended by end; their sources are still open; guarded by mu
}

// open initializes a socket whose peer was connected in ctx.
func (s *socket) open(ctx context.Context) {
	t := s.transports
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.openedAt = t.now()
	s.lastPing = s.openedAt
	s.writerDone.Add(1)
	s.connection = &connection{address: t.options.Address(ctx), key: t.options.Key(ctx), end: s.end, close: s.close, check: s.check}
	s.ws.SetReadLimit(t.options.ReadLimit)
	s.ws.SetPongHandler(func(string) error { s.markAlive(); return nil })
	s.ws.SetPingHandler(func(payload string) error { s.markAlive(); s.queuePong(payload); return nil })
	s.ws.SetCloseHandler(func(code int, _ string) error { s.close(code, ""); return nil })
}

// closeError is the code and reason of a close frame.
type closeError struct {
	code   int
	reason string
}

func (e *closeError) Error() string { return e.reason }

// readLoop handles one message and then continues in a new goroutine: handling a
// message grows the stack, which an idle socket should not keep. When the socket is
// closed, it cleans up.
func (s *socket) readLoop() {
	if s.readMessage() {
		go s.readLoop()
		return
	}
	s.close(closeNormal, "")
	s.writerDone.Wait()
	s.endAllOperations()
	s.drain()
	s.operationsWG.Wait()
	s.transports.removeConnection(s.connection)
}

// readMessage reads and handles one message. It returns false if the socket is closed.
func (s *socket) readMessage() (open bool) {
	defer func() {
		if p := recover(); p != nil {
			s.transports.options.Logger.ErrorContext(s.ctx, "websocket panic", slog.Any("panic", p))
			s.close(closeInternal, "internal error")
			open = false
		}
	}()
	kind, reader, err := s.ws.NextReader()
	if err != nil {
		s.close(closeWithoutFrame, "") // the library has sent a close frame for a protocol error
		return false
	}
	buffer := getBuffer()
	defer putBuffer(buffer)
	_, err = buffer.ReadFrom(reader)
	s.markAlive()
	switch {
	case err != nil:
		s.close(closeWithoutFrame, "")
	case s.ctx.Err() != nil:
	case kind != websocket.TextMessage:
		s.close(closeNotText, "Messages must be text")
	case !utf8.Valid(buffer.Bytes()):
		s.close(closeNotUTF8, "Messages must be valid UTF-8")
	default:
		return s.handleMessage(buffer.Bytes())
	}
	return false
}

func (s *socket) markAlive() { s.silentChecks.Store(0) }

// check closes the socket on a timeout and sends pings. A silent peer times out after
// a number of checks, not after a duration: peers stay connected if the process itself
// was suspended. It is called with Transports.mu held.
func (s *socket) check(now time.Duration) {
	o := &s.transports.options
	silent := time.Duration(s.silentChecks.Add(1)) * s.transports.heartbeatInterval()
	switch {
	case s.currentWriteTime(now) > o.WriteTimeout:
		s.disconnectStuck()
	case s.ctx.Err() != nil:
	case now-s.openedAt > o.InitTimeout && s.sessionContext() == nil:
		s.close(closeInitTimeout, "Connection initialisation timeout")
	case silent > o.PingInterval*maxSilentHalfIntervals/2:
		s.close(closeGoingAway, "ping timeout")
	case now-s.lastPing >= o.PingInterval:
		s.lastPing = now
		s.queuePing()
	}
}

// end ends every operation except mutations. The writer closes the socket when it has
// sent the responses of the mutations. New operations are ignored. Calls after the first
// one have no effect. It does not block.
func (s *socket) end(code int, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending != nil {
		return
	}
	s.ending = &closeError{code, reason}
	s.activeOperations = slices.DeleteFunc(s.activeOperations, func(op *operation) bool {
		if op.mutation {
			return false
		}
		op.cancel()
		s.endedOperations = append(s.endedOperations, op)
		return true
	})
	s.dropQueued(func(op *operation) bool { return slices.Contains(s.endedOperations, op) })
	s.startWriter()
}

// close closes the socket; the writer sends the close frame. Calls after the first one
// have no effect. It does not block: a write in progress gets one more second.
func (s *socket) close(code int, reason string) {
	s.cancel(&closeError{code, reason})
	_ = s.conn.SetWriteDeadline(time.Now().Add(drainTimeout)) //nolint:forbidigo // a real connection's deadline
	s.wakeWriter()
}

// drain closes the connection after giving the peer a moment to read the close frame.
// It discards what the peer still sends.
func (s *socket) drain() {
	s.writerDone.Wait()
	s.setReadTimeout(drainTimeout)
	_, _ = io.Copy(io.Discard, s.conn)
	_ = s.conn.Close()
}
