package transport

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
)

// hijackWriter takes over the connection of a request for the WebSocket library, which
// writes the answer to the handshake and, when the peer breaks the protocol, a
// close frame. All else is written here.
type hijackWriter struct {
	http.ResponseWriter
	conn *socketConn
}

// Hijack takes the connection over, behind wrapped writers too.
func (h *hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = &socketConn{Conn: conn}
	return h.conn, buffered, err //nolint:wrapcheck // http.Hijacker's contract
}

var errCloseSent = errors.New("a close frame was sent")

// socketConn is a socket's connection. Nothing follows a close frame on it.
type socketConn struct {
	net.Conn
	mu               sync.Mutex
	upgraded, closed bool
}

// Write is the library's: once the handshake is over, what it writes is a close
// frame.
func (w *socketConn) Write(frame []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = w.upgraded
	return w.Conn.Write(frame) //nolint:wrapcheck // net.Conn's contract
}

// writeFrames writes whole frames.
func (w *socketConn) writeFrames(frames []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errCloseSent
	}
	_, err := w.Conn.Write(frames)
	return err //nolint:wrapcheck // only that it failed matters
}
