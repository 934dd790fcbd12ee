package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
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
	readBuffer         = 512 // bytes; what an idle socket keeps
	maxQueued          = 64  // frames that wait for one client
	drainTime          = time.Second
	maxCloseReason     = 120 // bytes
	silentIntervals    = 5   // half ping intervals until a silent peer is dead
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
		ctx: ctx, cancel: cancel, queue: make(chan []byte, maxQueued), running: map[string]*running{},
	}
	s.live = &live{address: t.options.Address(ctx), key: t.options.Key(ctx), end: s.close}
	if err := t.join(s.live); err != nil {
		s.close(closeCode(err), err.Error())
		go func() { s.leave(); s.drain() }()
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
// operation has one. It ends with its context, whose cause is a farewell.
type socket struct {
	transports *Transports
	live       *live
	ws         *websocket.Conn
	speaks     *protocol
	exec       graphql.GraphExecutor
	header     http.Header

	ctx        context.Context //nolint:containedctx // of the socket; operations get theirs from it
	cancel     context.CancelCauseFunc
	queue      chan []byte
	operations sync.WaitGroup

	mu      sync.Mutex
	session context.Context //nolint:containedctx // what Init made of the socket's context; nil before
	running map[string]*running
}

// farewell is what the peer is told at the end.
type farewell struct {
	code   int
	reason string
}

func (f *farewell) Error() string { return f.reason }

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
	var writer sync.WaitGroup
	writer.Go(s.write)
	s.read()
	writer.Wait()
	s.drain()
	s.operations.Wait()
}

// read handles messages one after the other, and ends the socket when there are
// no more.
func (s *socket) read() {
	defer s.close(closeNormal, "")
	defer func() {
		if p := recover(); p != nil {
			s.transports.options.Logger.ErrorContext(s.ctx, "panic in a socket", slog.Any("panic", p))
			s.close(closeInternal, "internal error")
		}
	}()
	for {
		kind, reader, err := s.ws.NextReader()
		if err != nil {
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				s.close(closeGoingAway, "no sign of life")
			}
			return
		}
		text, err := io.ReadAll(reader)
		if err != nil || s.ctx.Err() != nil {
			return
		}
		s.stayAlive()
		switch {
		case kind != websocket.TextMessage:
			s.close(closeNotText, "Messages must be text")
			return
		case !utf8.Valid(text):
			s.close(closeNotUTF8, "Messages must be valid UTF-8")
			return
		case !s.handle(text):
			return
		}
	}
}

// stayAlive puts off the moment at which the peer counts as dead.
func (s *socket) stayAlive() {
	s.readUntil(s.transports.options.PingInterval * silentIntervals / 2)
	if s.ctx.Err() != nil {
		s.readUntil(drainTime)
	}
}

func (s *socket) readUntil(d time.Duration) {
	_ = s.ws.SetReadDeadline(time.Now().Add(d)) //nolint:forbidigo // a real connection's deadline
}

// write sends queued frames and pings, and at last the farewell. A frame that
// takes longer than the write time ends the socket.
func (s *socket) write() {
	ticker := time.NewTicker(s.transports.options.PingInterval)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-s.ctx.Done():
			s.leave()
			return
		case frame := <-s.queue:
			err = s.writeFrame(frame)
		case <-ticker.C:
			err = s.ping()
		}
		if err != nil {
			s.cancel(err)
			_ = s.ws.Close()
			return
		}
	}
}

func (s *socket) writeFrame(frame []byte) error {
	_ = s.ws.SetWriteDeadline(time.Now().Add(s.transports.options.WriteTimeout)) //nolint:forbidigo // a real connection's deadline
	return s.ws.WriteMessage(websocket.TextMessage, frame)                       //nolint:wrapcheck // only that it failed matters
}

// ping asks whether the peer is there, and tells older clients that we are.
func (s *socket) ping() error {
	if keepAlive := s.speaks.keepAlive; keepAlive != "" && s.sessionContext() != nil {
		if err := s.writeFrame([]byte(`{"type":"` + keepAlive + `"}`)); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(s.transports.options.WriteTimeout)  //nolint:forbidigo // a real connection's deadline
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

// close ends the socket; the writer tells the peer why. The first call counts.
// It does not wait, not even for a write that is stuck: that has a second left.
func (s *socket) close(code int, reason string) {
	s.cancel(&farewell{code, reason})
	_ = s.ws.NetConn().SetWriteDeadline(time.Now().Add(drainTime)) //nolint:forbidigo // a real connection's deadline
}

// leave sends what was still queued and the close frame within a second, and
// has the reader wait that long for the peer to take them.
func (s *socket) leave() {
	defer s.readUntil(drainTime)
	deadline := time.Now().Add(drainTime) //nolint:forbidigo // a real connection's deadline
	_ = s.ws.SetWriteDeadline(deadline)
	for len(s.queue) > 0 {
		if s.ws.WriteMessage(websocket.TextMessage, <-s.queue) != nil {
			return
		}
	}
	if end, ok := errors.AsType[*farewell](context.Cause(s.ctx)); ok {
		reason := strings.ToValidUTF8(end.reason[:min(len(end.reason), maxCloseReason)], "")
		_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(end.code, reason), deadline)
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
