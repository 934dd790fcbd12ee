package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Subscription is the subscription of an audience, over graphql-transport-ws unless Topic
// is set. Subscribers are numbered from 0.
type Subscription struct {
	Addr string
	// Init is the payload of connection_init, in JSON.
	Init func(subscriber int) string
	// Payload is the payload of subscribe, in JSON.
	Payload func(subscriber int) string
	// Topic is the topic of PocketBase's realtime API.
	Topic string
	// StampPrefix is the text before the Stamp that identifies an event.
	StampPrefix string
	// CursorPrefix is the text before an event's cursor, a number that must increase; empty
	// if events have no cursors.
	CursorPrefix string
}

// stream is a live subscription for use by one goroutine.
type stream interface {
	// message is the next whole message, valid until the next call.
	message() ([]byte, error)
	close() error
}

// open subscribes. Subscribers use a hundred source addresses.
func (s Subscription) open(ctx context.Context, i int, dialer net.Dialer) (stream, error) {
	dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%100))}
	conn, err := dialLoopback(ctx, s.Addr, dialer)
	if err != nil {
		return nil, err
	}
	if s.Topic != "" {
		f := &sseStream{conn: conn}
		if err := f.subscribe(ctx, s, dialer); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return f, nil
	}
	sock := &webSocketStream{conn: conn, in: bufio.NewReaderSize(conn, 2<<10)}
	if err := sock.subscribe(s, i); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return sock, nil
}

// webSocketStream is a subscription over a WebSocket.
type webSocketStream struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte
}

// WebSocket opcodes (RFC 6455, 5.2).
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

// maxMessage is larger than any event of the benchmark.
const maxMessage = 1 << 20

// subscribe sends the subscription with its own operation ID. IDs vary in form and length
// like those of real clients.
func (s *webSocketStream) subscribe(sub Subscription, i int) error {
	if err := s.conn.SetDeadline(time.Now().Add(responseTimeout)); err != nil {
		return err
	}
	if err := s.upgrade(sub.Addr); err != nil {
		return err
	}
	if err := s.writeFrame(opText, []byte(`{"type":"connection_init","payload":`+sub.Init(i)+`}`)); err != nil {
		return fmt.Errorf("connection_init: %w", err)
	}
	message, err := s.message()
	if err != nil {
		return fmt.Errorf("wait for connection_ack: %w", err)
	}
	if !bytes.Contains(message, []byte(`"connection_ack"`)) {
		return fmt.Errorf("want connection_ack, got %.300s", message)
	}
	if err := s.writeFrame(opText, fmt.Appendf(nil, `{"id":%q,"type":"subscribe","payload":%s}`, operationID(i), sub.Payload(i))); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return s.conn.SetDeadline(time.Time{})
}

func (s *webSocketStream) upgrade(addr string) error {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	_, err := fmt.Fprintf(s.conn, "GET /graphql HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n",
		addr, base64.StdEncoding.EncodeToString(nonce))
	if err != nil {
		return fmt.Errorf("send upgrade: %w", err)
	}
	answer, err := readResponseHead(s.in)
	if err != nil {
		return fmt.Errorf("read upgrade: %w", err)
	}
	if answer.status != 101 {
		return fmt.Errorf("upgrade refused with status %d", answer.status)
	}
	return nil
}

func operationID(i int) string {
	switch i % 3 {
	case 0:
		return strconv.Itoa(i)
	case 1:
		return "operation-" + strconv.Itoa(i)
	default:
		return fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i)
	}
}

func (s *webSocketStream) close() error { return s.conn.Close() }

// message returns the next text message that is not a ping of the protocol. It responds to
// pings of either kind.
func (s *webSocketStream) message() ([]byte, error) {
	for {
		message, err := s.readMessage()
		if err != nil || len(message) > 100 || !bytes.Contains(message, []byte(`"type":"ping"`)) {
			return message, err
		}
		if err := s.writeFrame(opText, []byte(`{"type":"pong"}`)); err != nil {
			return nil, err
		}
	}
}

// readMessage returns the next complete text message.
func (s *webSocketStream) readMessage() ([]byte, error) {
	s.buf = s.buf[:0]
	for {
		last, opcode, size, err := s.readFrameHeader()
		if err != nil {
			return nil, err
		}
		if opcode >= opClose {
			if err := s.handleControl(opcode, size); err != nil {
				return nil, err
			}
			continue
		}
		if len(s.buf)+size > maxMessage {
			return nil, fmt.Errorf("message of more than %d bytes", maxMessage)
		}
		if s.buf, err = readInto(s.in, s.buf, size); err != nil {
			return nil, err
		}
		if last {
			return s.buf, nil
		}
	}
}

func (s *webSocketStream) readFrameHeader() (last bool, opcode byte, size int, err error) {
	var b [8]byte
	if _, err := readInto(s.in, b[:0], 2); err != nil {
		return false, 0, 0, err
	}
	if b[0]&0x70 != 0 || b[1]&0x80 != 0 {
		return false, 0, 0, fmt.Errorf("frame % x is masked or uses an extension that was not negotiated", b[:2])
	}
	last, opcode, size = b[0]&0x80 != 0, b[0]&0x0f, int(b[1])
	switch size {
	case 126:
		_, err = readInto(s.in, b[:0], 2)
		size = int(binary.BigEndian.Uint16(b[:]))
	case 127:
		_, err = readInto(s.in, b[:0], 8)
		size = int(min(binary.BigEndian.Uint64(b[:]), maxMessage+1))
	}
	return last, opcode, size, err
}

func (s *webSocketStream) handleControl(opcode byte, size int) error {
	payload, err := readInto(s.in, nil, size)
	switch {
	case err != nil:
		return err
	case opcode == opClose:
		code := 0
		if len(payload) >= 2 {
			code, payload = int(binary.BigEndian.Uint16(payload)), payload[2:]
		}
		return fmt.Errorf("closed by the server: %d %s", code, strings.ToValidUTF8(string(payload), "?"))
	case opcode == opPing:
		return s.writeFrame(opPong, payload)
	default:
		return nil
	}
}

// writeFrame sends one frame. Clients must mask frames; the mask is zero.
func (s *webSocketStream) writeFrame(opcode byte, payload []byte) error {
	frame := []byte{0x80 | opcode}
	switch {
	case len(payload) < 126:
		frame = append(frame, 0x80|byte(len(payload)))
	default:
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(len(payload)))
	}
	frame = append(frame, 0, 0, 0, 0)
	_, err := s.conn.Write(append(frame, payload...))
	return err
}
