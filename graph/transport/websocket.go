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
	closeGoingAway     = websocket.CloseGoingAway
	closeFull          = websocket.CloseTryAgainLater
	closeNormal        = websocket.CloseNormalClosure
	closeNotText       = websocket.CloseUnsupportedData
	closeNotUTF8       = websocket.CloseInvalidFramePayloadData
	closeInternal      = websocket.CloseInternalServerErr
	closeBadMessage    = 4400
	closeUnauthorized  = 4401
	closeForbidden     = 4403
	closeNoInit        = 4408
	closeDuplicate     = 4409
	closeSecondInit    = 4429
	closeSilently      = 0   // the peer has been told already, or cannot be
	readBuffer         = 256 // bytes; what an idle socket keeps
	drainTime          = time.Second
	silentIntervals    = 5 // half ping intervals until a silent peer is dead
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
	taken := &hijack{ResponseWriter: w}
	ws, err := upgrader.Upgrade(taken, r, nil)
	if err != nil {
		return // it has answered
	}
	taken.wire.upgraded = true
	s := &socket{transports: t.Transports, ws: ws, wire: taken.wire, speaks: protocolOf(ws.Subprotocol()), exec: exec}
	s.open(context.WithoutCancel(r.Context()))
	if err := t.join(s.live); err != nil {
		s.close(closeCode(err), err.Error())
		go s.drain()
		return
	}
	go s.read()
}

var writeBuffers = &sync.Pool{} //nolint:gochecknoglobals // a pool is shared by its nature

// socket is one live WebSocket. One goroutine reads; another writes, for as long
// as there is something to write. It ends with its context, whose cause is a
// farewell. Whatever is sent goes through its outbox.
type socket struct {
	outbox
	transports *Transports
	live       *live
	ws         *websocket.Conn // only reads
	wire       *wire
	speaks     *protocol
	exec       graphql.GraphExecutor

	ctx        context.Context //nolint:containedctx // of the socket; operations get theirs from it
	cancel     context.CancelCauseFunc
	operations sync.WaitGroup // those with a goroutine
	began      time.Duration  // since the transports began
	unheard    atomic.Int64   // looks at it since the peer last showed life
	pinged     time.Duration  // guarded by transports.mu

	session context.Context //nolint:containedctx // what Init made of the socket's context; nil before; guarded by mu
	running []*running      // guarded by mu
}

// open makes a socket ready to be read.
func (s *socket) open(ctx context.Context) {
	t := s.transports
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.began = t.now()
	s.pinged = s.began
	s.farewell.Add(1)
	s.live = &live{address: t.options.Address(ctx), key: t.options.Key(ctx), end: s.close, look: s.look}
	s.ws.SetReadLimit(t.options.ReadLimit)
	s.ws.SetPongHandler(func(string) error { s.showLife(); return nil })
	s.ws.SetPingHandler(func(payload string) error { s.showLife(); s.pong(payload); return nil })
	s.ws.SetCloseHandler(func(code int, _ string) error { s.close(code, ""); return nil })
}

// farewell is what the peer is told at the end.
type farewell struct {
	code   int
	reason string
}

func (f *farewell) Error() string { return f.reason }

// read handles one message and leaves the next one to another goroutine: to
// handle one takes a deep stack, which a socket that is idle need not keep. At
// the socket's end it cleans up.
func (s *socket) read() {
	if s.next() {
		go s.read()
		return
	}
	s.close(closeNormal, "")
	s.farewell.Wait()
	s.endAll()
	s.drain()
	s.operations.Wait()
	s.transports.leave(s.live)
}

// next reads a message and handles it. It reports whether the socket goes on.
func (s *socket) next() (goesOn bool) {
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
	s.showLife()
	switch {
	case err != nil:
		s.close(closeSilently, "")
	case s.ctx.Err() != nil:
	case kind != websocket.TextMessage:
		s.close(closeNotText, "Messages must be text")
	case !utf8.Valid(buffer.Bytes()):
		s.close(closeNotUTF8, "Messages must be valid UTF-8")
	default:
		return s.handle(buffer.Bytes())
	}
	return false
}

func (s *socket) showLife() { s.unheard.Store(0) }

// look ends what took too long, and pings when it is time. A peer counts as dead
// after so many looks and not after so much time: a process that was stopped for
// a minute comes back to peers that are alive. The transports' lock is held.
func (s *socket) look(now time.Duration) {
	o := &s.transports.options
	silent := time.Duration(s.unheard.Add(1)) * s.transports.interval()
	switch {
	case s.stuckFor(now) > o.WriteTimeout:
		s.cut()
	case s.ctx.Err() != nil:
	case now-s.began > o.InitTimeout && s.sessionContext() == nil:
		s.close(closeNoInit, "Connection initialisation timeout")
	case silent > o.PingInterval*silentIntervals/2:
		s.close(closeGoingAway, "no sign of life")
	case now-s.pinged >= o.PingInterval:
		s.pinged = now
		s.ping()
	}
}

// close ends the socket; the writer tells the peer why. The first call counts.
// It does not wait, not even for a write that is stuck: that has a second left.
func (s *socket) close(code int, reason string) {
	s.cancel(&farewell{code, reason})
	_ = s.wire.SetWriteDeadline(time.Now().Add(drainTime)) //nolint:forbidigo // a real connection's deadline
	s.rouse()
}

// drain lets the peer read the close frame before the connection goes: what it
// still sends is thrown away for a moment.
func (s *socket) drain() {
	s.farewell.Wait()
	s.readUntil(drainTime)
	_, _ = io.Copy(io.Discard, s.wire)
	_ = s.wire.Close()
}
