package transport

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/gorilla/websocket"
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
	closeSilently          = 0   // the peer has been told already, or cannot be
	readBufferSize         = 256 // bytes; what an idle socket keeps
	drainTimeout           = time.Second
	maxSilentHalfIntervals = 5 // half ping intervals until a silent peer is dead
	handshakeTimeout       = 5 * time.Second
)

// webSocket serves operations over sockets.
type webSocket struct{ *Transports }

// Supports takes requests to upgrade.
func (*webSocket) Supports(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

// Do upgrades the connection and returns: a goroutine of the socket's own reads
// on, so that net/http keeps nothing for it.
func (t *webSocket) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	if offered := websocket.Subprotocols(r); len(offered) > 0 && negotiateProtocol(offered) == "" {
		http.Error(w, "speak graphql-transport-ws or graphql-ws", http.StatusBadRequest)
		return
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: handshakeTimeout, ReadBufferSize: readBufferSize, WriteBufferPool: writeBufferPool,
		Subprotocols: []string{modern.name, legacy.name}, CheckOrigin: t.options.CheckOrigin,
	}
	taken := &hijackWriter{ResponseWriter: w}
	ws, err := upgrader.Upgrade(taken, r, nil)
	if err != nil {
		return // it has answered
	}
	taken.conn.upgraded = true
	s := &socket{transports: t.Transports, ws: ws, conn: taken.conn, protocol: protocolByName(ws.Subprotocol()), exec: exec}
	s.open(context.WithoutCancel(r.Context()))
	if err := t.addConnection(s.connection); err != nil {
		s.close(closeCodeFor(err), err.Error())
		go s.drain()
		return
	}
	go s.readLoop()
}

var writeBufferPool = &sync.Pool{} //nolint:gochecknoglobals // a pool is shared by its nature

// socket is one live WebSocket. One goroutine reads; another writes, for as long
// as there is something to write. It ends with its context, whose cause is a
// farewell. Whatever is sent goes through its outbox.
type socket struct {
	socketWriter
	transports *Transports
	connection *connection
	ws         *websocket.Conn // only reads
	conn       *socketConn
	protocol   *protocol
	exec       graphql.GraphExecutor

	ctx          context.Context //nolint:containedctx // of the socket; operations get theirs from it
	cancel       context.CancelCauseFunc
	operationsWG sync.WaitGroup // those with a goroutine
	openedAt     time.Duration  // since the transports began
	silentChecks atomic.Int64   // looks at it since the peer last showed life
	lastPing     time.Duration  // guarded by transports.mu

	session          context.Context //nolint:containedctx // what Init made of the socket's context; nil before; guarded by mu
	activeOperations []*operation    // guarded by mu
}

// open makes a socket ready to be read.
func (s *socket) open(ctx context.Context) {
	t := s.transports
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.openedAt = t.now()
	s.lastPing = s.openedAt
	s.writerDone.Add(1)
	s.connection = &connection{address: t.options.Address(ctx), key: t.options.Key(ctx), disconnect: s.close, check: s.check}
	s.ws.SetReadLimit(t.options.ReadLimit)
	s.ws.SetPongHandler(func(string) error { s.markAlive(); return nil })
	s.ws.SetPingHandler(func(payload string) error { s.markAlive(); s.queuePong(payload); return nil })
	s.ws.SetCloseHandler(func(code int, _ string) error { s.close(code, ""); return nil })
}

// closeError is what the peer is told at the end.
type closeError struct {
	code   int
	reason string
}

func (f *closeError) Error() string { return f.reason }

// readLoop handles one message and leaves the next one to another goroutine: to
// handle one takes a deep stack, which a socket that is idle need not keep. At
// the socket's end it cleans up.
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

// readMessage reads a message and handles it. It reports whether the socket goes on.
func (s *socket) readMessage() (goesOn bool) {
	defer func() {
		if p := recover(); p != nil {
			s.transports.options.Logger.ErrorContext(s.ctx, "panic in a socket", slog.Any("panic", p))
			s.close(closeInternal, "internal error")
			goesOn = false
		}
	}()
	kind, reader, err := s.ws.NextReader()
	if err != nil {
		s.close(closeSilently, "") // the library has told the peer what it did wrong
		return false
	}
	buffer := getBuffer()
	defer putBuffer(buffer)
	_, err = buffer.ReadFrom(reader)
	s.markAlive()
	switch {
	case err != nil:
		s.close(closeSilently, "")
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

// check ends what took too long, and pings when it is time. A peer counts as dead
// after so many looks and not after so much time: a process that was stopped for
// a minute comes back to peers that are alive. The transports' lock is held.
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
		s.close(closeGoingAway, "no sign of life")
	case now-s.lastPing >= o.PingInterval:
		s.lastPing = now
		s.queuePing()
	}
}

// close ends the socket; the writer tells the peer why. The first call counts.
// It does not wait, not even for a write that is stuck: that has a second left.
func (s *socket) close(code int, reason string) {
	s.cancel(&closeError{code, reason})
	_ = s.conn.SetWriteDeadline(time.Now().Add(drainTimeout)) //nolint:forbidigo // a real connection's deadline
	s.wakeWriter()
}

// drain lets the peer read the close frame before the connection goes: what it
// still sends is thrown away for a moment.
func (s *socket) drain() {
	s.writerDone.Wait()
	s.setReadTimeout(drainTimeout)
	_, _ = io.Copy(io.Discard, s.conn)
	_ = s.conn.Close()
}
