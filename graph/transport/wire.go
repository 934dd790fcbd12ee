package transport

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
)

// hijack takes over the connection of a request for the WebSocket library, which
// writes the answer to the handshake and, when the peer breaks the protocol, a
// close frame. All else is written here.
type hijack struct {
	http.ResponseWriter
	wire *wire
}

// Hijack takes the connection over, behind wrapped writers too.
func (h *hijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.wire = &wire{Conn: conn}
	return h.wire, buffered, err //nolint:wrapcheck // http.Hijacker's contract
}

var errClosed = errors.New("a close frame was sent")

// wire is a socket's connection. Nothing follows a close frame on it.
type wire struct {
	net.Conn
	mu               sync.Mutex
	upgraded, closed bool
}

// Write is the library's: once the handshake is over, what it writes is a close
// frame.
func (w *wire) Write(frame []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = w.upgraded
	return w.Conn.Write(frame) //nolint:wrapcheck // net.Conn's contract
}

// put writes whole frames.
func (w *wire) put(frames []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	_, err := w.Conn.Write(frames)
	return err //nolint:wrapcheck // only that it failed matters
}
