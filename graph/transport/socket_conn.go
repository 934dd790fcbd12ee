package transport

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
)

// hijackWriter hijacks the connection of a request for the WebSocket library. The
// library writes the handshake response and a close frame after a protocol error; all
// other frames are written by this package.
type hijackWriter struct {
	http.ResponseWriter
	conn *socketConn
}

// Hijack takes over the connection. It also works through wrapped response writers.
func (h *hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = &socketConn{Conn: conn}
	return h.conn, buffered, err //nolint:wrapcheck // http.Hijacker's contract
}

var errCloseSent = errors.New("a close frame was sent")

// socketConn is the connection of a socket. It writes no frame after a close frame.
type socketConn struct {
	net.Conn
	mu               sync.Mutex
	upgraded, closed bool
}

// Write is called by the WebSocket library. After the handshake, the library only
// writes close frames.
func (c *socketConn) Write(frame []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = c.upgraded
	return c.Conn.Write(frame) //nolint:wrapcheck // net.Conn's contract
}

// writeFrames writes complete frames. It returns errCloseSent after a close frame.
func (c *socketConn) writeFrames(frames []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errCloseSent
	}
	_, err := c.Conn.Write(frames)
	return err //nolint:wrapcheck // callers only check for nil
}
