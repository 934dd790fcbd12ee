package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httputil"
	"time"
)

// sseStream is a subscription to PocketBase's realtime API over server-sent events. The
// first event has the client ID for the request that sets the topics.
type sseStream struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte
}

func (f *sseStream) subscribe(ctx context.Context, sub Subscription, dialer net.Dialer) error {
	if err := f.conn.SetDeadline(time.Now().Add(responseTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f.conn, "GET /api/realtime HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", sub.Addr); err != nil {
		return fmt.Errorf("ask for events: %w", err)
	}
	head := bufio.NewReaderSize(f.conn, 2<<10)
	answer, err := readResponseHead(head)
	if err != nil {
		return fmt.Errorf("read the head of the events: %w", err)
	}
	if answer.status != 200 || !answer.chunked {
		return fmt.Errorf("events refused with status %d", answer.status)
	}
	f.in = bufio.NewReaderSize(httputil.NewChunkedReader(head), 2<<10)
	hello, err := f.message()
	if err != nil {
		return fmt.Errorf("wait for the id of the connection: %w", err)
	}
	_, rest, _ := bytes.Cut(hello, []byte(`"clientId":"`))
	id, _, known := bytes.Cut(rest, []byte(`"`))
	if !known {
		return fmt.Errorf("want the id of the connection, got %.300s", hello)
	}
	// PocketBase requires the request from the address that receives the events.
	conn, err := dial(ctx, sub.Addr, dialer)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the connection is not used again
	ask := NewRequest("POST", "/api/realtime", nil, fmt.Sprintf(`{"clientId":%q,"subscriptions":[%q]}`, id, sub.Topic), "", 0)
	if _, err := conn.Do(ask, 0); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return f.conn.SetDeadline(time.Time{})
}

func (f *sseStream) close() error { return f.conn.Close() }

// message returns all lines up to the next empty one.
func (f *sseStream) message() ([]byte, error) {
	f.buf = f.buf[:0]
	for {
		line, err := f.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if len(f.buf)+len(line) > maxMessage {
			return nil, fmt.Errorf("message of more than %d bytes", maxMessage)
		}
		if len(line) == 1 && len(f.buf) > 0 && f.buf[len(f.buf)-1] == '\n' {
			return f.buf, nil
		}
		f.buf = append(f.buf, line...)
	}
}
