package app

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
)

// framingListener makes the headers of requests visible to hasAmbiguousLength.
type framingListener struct{ net.Listener }

// Accept implements net.Listener.
func (l framingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // net.Listener's contract
	}
	return &framingConn{Conn: conn}, nil
}

// framingConn counts the headers of the current request that tell its length. net/http
// removes a Content-Length next to a Transfer-Encoding, and a repeated one, before a handler
// sees the request.
type framingConn struct {
	net.Conn

	mu sync.Mutex
	headerCounter
}

// Read implements net.Conn.
func (c *framingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(p[:n])
	return n, err //nolint:wrapcheck // net.Conn's contract
}

func (c *framingConn) current() headerCounter {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headerCounter
}

// headerCounter counts lines of the header section of one request.
type headerCounter struct {
	lengths, encodings int // lines with Content-Length and Transfer-Encoding

	line  [len("transfer-encoding:")]byte // the start of the current line
	size  int                             // bytes in line
	begun bool                            // a line was read
	ended bool                            // the empty line was read
}

func (c *headerCounter) add(text []byte) {
	for !c.ended && len(text) > 0 {
		line, rest, complete := bytes.Cut(text, []byte("\n"))
		c.size += copy(c.line[c.size:], line)
		if complete {
			c.endLine()
		}
		text = rest
	}
}

func (c *headerCounter) endLine() {
	start := strings.TrimRight(string(c.line[:c.size]), "\r")
	c.size = 0
	name, _, _ := strings.Cut(start, ":")
	switch {
	case start == "":
		c.ended = c.begun // net/http skips empty lines before a request
		return
	case strings.EqualFold(name, "Content-Length"):
		c.lengths++
	case strings.EqualFold(name, "Transfer-Encoding"):
		c.encodings++
	}
	c.begun = true
}

type framingKey struct{}

// watchFraming makes a server with a framingListener reset the counts between requests.
func watchFraming(server *http.Server) {
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, framingKey{}, conn)
	}
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		if framing, ok := conn.(*framingConn); ok && state == http.StateIdle {
			framing.mu.Lock()
			defer framing.mu.Unlock()
			framing.headerCounter = headerCounter{}
		}
	}
}

// hasAmbiguousLength reports whether a request has several headers for its length, or a
// Transfer-Encoding in HTTP/1.0 (RFC 9112, section 6). The headers of a pipelined request
// are not seen, so it may not be chunked.
func hasAmbiguousLength(r *http.Request) bool {
	conn, ok := r.Context().Value(framingKey{}).(*framingConn)
	if !ok {
		return false
	}
	seen := conn.current()
	return seen.lengths+seen.encodings > 1 || seen.encodings > 0 && !r.ProtoAtLeast(1, 1) || seen.encodings == 0 && len(r.TransferEncoding) > 0
}
