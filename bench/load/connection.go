package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Connection is a keep-alive HTTP/1.1 connection for use by one goroutine at a time.
type Connection struct {
	conn     net.Conn
	in       *bufio.Reader
	out      []byte
	body     []byte
	deadline time.Time
}

// responseTimeout bounds the wait for a response.
const responseTimeout = 30 * time.Second

// Dial connects to a server on this machine.
func Dial(ctx context.Context, addr string) (*Connection, error) {
	return dial(ctx, addr, net.Dialer{})
}

func dial(ctx context.Context, addr string, dialer net.Dialer) (*Connection, error) {
	conn, err := dialLoopback(ctx, addr, dialer)
	if err != nil {
		return nil, err
	}
	return &Connection{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

// dialLoopback connects to a server on this machine only.
func dialLoopback(ctx context.Context, addr string, dialer net.Dialer) (net.Conn, error) {
	if host, _, err := net.SplitHostPort(addr); err != nil || !net.ParseIP(host).IsLoopback() {
		return nil, fmt.Errorf("%q is not an address of this machine", addr)
	}
	dialer.Timeout, dialer.KeepAlive = responseTimeout, -1
	return dialer.DialContext(ctx, "tcp", addr)
}

// Close closes the connection.
func (c *Connection) Close() error { return c.conn.Close() }

// Do sends a request stamped with number and checks its response, which is valid until the
// next call. After an error the connection must not be used again.
func (c *Connection) Do(request Request, number int64) (answer []byte, err error) {
	// Setting a deadline costs a timer: one serves many requests.
	if now := time.Now(); c.deadline.Sub(now) < responseTimeout/2 {
		c.deadline = now.Add(responseTimeout)
		if err := c.conn.SetDeadline(c.deadline); err != nil {
			return nil, err
		}
	}
	c.out = request.stamped(c.out[:0], number)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	status, err := c.read()
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return c.body, request.check(status, c.body)
}

// read reads one response and stores its body in c.body.
func (c *Connection) read() (status int, err error) {
	head, err := readResponseHead(c.in)
	if err != nil {
		return 0, err
	}
	switch {
	case head.chunked:
		c.body, err = readChunks(c.in, c.body[:0])
	case head.status == http.StatusNoContent:
		c.body = c.body[:0]
	case head.length >= 0:
		c.body, err = readInto(c.in, c.body[:0], head.length)
	default:
		err = errors.New("answer has neither a length nor chunks")
	}
	if err == nil && head.closes {
		err = fmt.Errorf("server closes the connection after status %d: %.300s", head.status, c.body)
	}
	return head.status, err
}

// responseHead is the part of a response head that a client needs to read the body.
type responseHead struct {
	status  int
	length  int // -1 if absent
	chunked bool
	closes  bool
}

func readResponseHead(in *bufio.Reader) (responseHead, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return responseHead{}, err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return responseHead{}, fmt.Errorf("no HTTP/1 status line: %q", line)
	}
	h := responseHead{length: -1}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return responseHead{}, fmt.Errorf("status line %q: %w", line, err)
	}
	for {
		line, err = in.ReadSlice('\n')
		if err != nil {
			return responseHead{}, err
		}
		name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if len(name) == 0 {
			return h, nil
		}
		value = bytes.TrimSpace(value)
		switch { // compares the length first, which rules out most headers
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil {
				return responseHead{}, fmt.Errorf("content length %q: %w", value, err)
			}
		case len(name) == len("Transfer-Encoding") && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.chunked = strings.EqualFold(string(value), "chunked")
		case len(name) == len("Connection") && bytes.EqualFold(name, []byte("Connection")):
			h.closes = strings.EqualFold(string(value), "close")
		}
	}
}

// readChunks appends a chunked body to dst.
func readChunks(in *bufio.Reader, dst []byte) ([]byte, error) {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return dst, err
		}
		size, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return dst, fmt.Errorf("chunk size: %w", err)
		}
		if dst, err = readInto(in, dst, int(size)); err != nil {
			return dst, err
		}
		if _, err := in.Discard(len("\r\n")); err != nil {
			return dst, err
		}
		if size == 0 {
			return dst, nil
		}
	}
}

// readInto appends exactly n bytes to dst.
func readInto(in io.Reader, dst []byte, n int) ([]byte, error) {
	start := len(dst)
	if cap(dst) < start+n {
		dst = append(make([]byte, 0, max(2*cap(dst), start+n)), dst...)
	}
	dst = dst[:start+n]
	_, err := io.ReadFull(in, dst[start:])
	return dst, err
}
