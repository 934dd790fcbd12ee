package transport_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
)

const (
	finBit  = 0x80
	rsv1Bit = 0x40
	maskBit = 0x80
)

// clientFrame is one frame as a client sends it: with a mask, of zeros.
func clientFrame(head byte, payload string) string {
	return frameHeader(head, maskBit, len(payload)) + "\x00\x00\x00\x00" + payload
}

// frameHeader begins a frame whose length may be a lie.
func frameHeader(head, mask byte, size int) string {
	switch {
	case size < 126:
		return string([]byte{head, mask | byte(size)})
	case size < 1<<16:
		return string(binary.BigEndian.AppendUint16([]byte{head, mask | 126}, uint16(size)))
	default:
		return string(binary.BigEndian.AppendUint64([]byte{head, mask | 127}, uint64(size)))
	}
}

// sendRaw puts bytes on the wire as they are.
func (p *wsClient) sendRaw(bytes string) {
	p.t.Helper()
	_, err := io.WriteString(p.NetConn(), bytes)
	testutil.Must(p.t, err)
}

const (
	textFrame         = finBit | websocket.TextMessage
	firstTextFrame    = websocket.TextMessage
	continuationFrame = 0
	pingFrame         = finBit | websocket.PingMessage
	closeFrame        = finBit | websocket.CloseMessage
)

// TestInvalidFrames: a peer that breaks the framing is told how, and nobody
// beside it notices.
func TestInvalidFrames(t *testing.T) { //nolint:tparallel // what is heard beside them is counted
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.ReadLimit = 4096 })
	beside := d.connect(t)
	beside.subscribe("a", "subscription { handed }")
	script := <-d.schema.sources
	for i, row := range []struct {
		name, bytes string
		code        int
	}{
		{"a frame without a mask", frameHeader(textFrame, 0, 2) + "{}", 1002},
		{"a compressed frame", clientFrame(textFrame|rsv1Bit, "{}"), 1002},
		{"a compressed ping", clientFrame(pingFrame|rsv1Bit, ""), 1002},
		{"a kind of frame that there is not", clientFrame(finBit|3, ""), 1002},
		{"a ping in parts", clientFrame(websocket.PingMessage, ""), 1002},
		{"a ping that is too long", clientFrame(pingFrame, strings.Repeat("x", 126)), 1002},
		{"a part of nothing", clientFrame(finBit|continuationFrame, "{}"), 1002},
		{"a message within another", clientFrame(firstTextFrame, "{") + clientFrame(textFrame, "}"), 1002},
		{"a close of one byte", clientFrame(closeFrame, "x"), 1005},
		{"a close with a code that none may send", clientFrame(closeFrame, "\x03\xed"), 1002},
		{"a close with a reason that is no text", clientFrame(closeFrame, "\x03\xe8\xff"), 1002},
		{"parts that are too much together", clientFrame(firstTextFrame, "") + strings.Repeat(clientFrame(continuationFrame, strings.Repeat(" ", 1000)), 5), 1009},
		{"a length of a terabyte", frameHeader(textFrame, maskBit, 1<<40) + "\x00\x00\x00\x00", 1009},
		{"a binary message in parts", clientFrame(websocket.BinaryMessage, "{") + clientFrame(finBit|continuationFrame, "}"), 1003},
		{"a letter cut in two by the end", clientFrame(firstTextFrame, `{"type":"ping","payload":{"a":"`+"\xe2\x82") + clientFrame(finBit|continuationFrame, `"}}`), 1007},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := d.connect(t)
			p.sendRaw(row.bytes)
			p.expectClose(row.code)
			script.push(strconv.Itoa(i))
			beside.expect(scriptedMessage(i))
		})
	}
	t.Run("a length below zero", func(t *testing.T) {
		p := d.connect(t)
		p.sendRaw(string([]byte{textFrame, maskBit | 127}) + strings.Repeat("\xff", 12))
		if _, _, err := p.ReadMessage(); err == nil {
			t.Error("the socket goes on")
		}
	})
	t.Run("a message in parts is one, with control frames in between", func(t *testing.T) {
		p := d.connect(t)
		pongs := 0
		p.SetPongHandler(func(payload string) error {
			if pongs++; payload != "here?" {
				t.Errorf("the pong says %q", payload)
			}
			return nil
		})
		p.sendRaw(clientFrame(firstTextFrame, `{"type":`) + clientFrame(pingFrame, "here?") + clientFrame(continuationFrame, `"pi`) + clientFrame(finBit|continuationFrame, `ng"}`))
		p.expect(`{"type":"pong","payload":null}`)
		if pongs != 1 {
			t.Errorf("%d pongs came", pongs)
		}
		p.sendRaw(clientFrame(closeFrame, "\x03\xe8bye"))
		p.expectClose(1000)
	})
}

// TestIncompleteFrame: a peer that stops in the middle of a frame is let go as a dead
// one is.
func TestIncompleteFrame(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	for _, bytes := range []string{frameHeader(textFrame, maskBit, 100), frameHeader(textFrame, maskBit, 100) + "\x00\x00\x00\x00{", string(rune(textFrame & 0x7f))} {
		p := d.connect(t)
		p.SetPingHandler(func(string) error { return nil }) // an answer would be the rest of the frame
		p.sendRaw(bytes)
		p.expectClose(1001)
	}
	testutil.Eventually(t, "nothing is left", func() bool { return d.transports.Connections() == 0 })
}

// TestFrameSizes: messages whose length is written in one, three and nine
// bytes come whole.
func TestFrameSizes(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	p := d.connect(t)
	around := len(`{"id":"a","type":"next","payload":{"data":{"large":""}}}`)
	for _, size := range []int{0, 125 - around, 126 - around, 1<<16 - 1 - around, 1<<16 - around, 1 << 20} {
		p.subscribe("a", fmt.Sprintf("subscription { large(size: %d) }", size))
		p.expect(`{"id":"a","type":"next","payload":{"data":{"large":"`+strings.Repeat("x", size)+`"}}}`, `{"id":"a","type":"complete"}`)
	}
}

// TestTooManyOperations: a client that begins ten thousand operations at once gets
// as many as it may have, and an error for each of the others.
func TestTooManyOperations(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	const many, allowed = 10_000, 50
	p, other := d.connect(t), d.connect(t)
	go func() {
		for i := range many {
			message := fmt.Sprintf(`{"id":"%d","type":"subscribe","payload":{"query":"subscription { silence }"}}`, i)
			if p.WriteMessage(websocket.TextMessage, []byte(message)) != nil {
				return
			}
		}
	}()
	for i := range many - allowed {
		if i%1000 == 0 {
			other.expectNoMessage()
		}
		want := fmt.Sprintf(`{"id":"%d","type":"error","payload":[{"message":"too many operations on this socket","extensions":{"code":"TOO_MANY_OPERATIONS"}}]}`, allowed+i)
		p.expect(want)
	}
	p.expectNoMessage()
}

// TestTooManyOperations_slowReader: one that does the same and reads none of the answers
// is held back, and then cut off.
func TestTooManyOperations_slowReader(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	p, other := d.connect(t), d.connect(t)
	id := strings.Repeat("x", 10_000) // comes back in each answer
	for i := 0; ; i++ {
		err := p.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":"%d%s","type":"subscribe","payload":{"query":"subscription { silence }"}}`, i, id))
		if err != nil {
			break
		}
	}
	testutil.Eventually(t, "it is cut off", func() bool { return d.transports.Connections() == 1 })
	other.expectNoMessage()
}

// FuzzSocketBytes: whatever comes after the handshake, the server ends the socket when
// the client has nothing more to say, and serves others.
func FuzzSocketBytes(f *testing.F) {
	for _, bytes := range []string{
		clientFrame(textFrame, initMessage), clientFrame(textFrame, initMessage) + clientFrame(textFrame, subscribeSilence), clientFrame(firstTextFrame, `{"type":`) + clientFrame(pingFrame, "x") + clientFrame(finBit|continuationFrame, `"ping"}`),
		frameHeader(textFrame, maskBit, 1<<40), clientFrame(textFrame|rsv1Bit, "{}"), clientFrame(closeFrame, "\x03\xe8"), clientFrame(closeFrame, ""), "GET / HTTP/1.1\r\n\r\n", "\x00", clientFrame(textFrame, "\xff"),
	} {
		f.Add([]byte(bytes))
	}
	d := startServer(f, nil)
	f.Fuzz(func(t *testing.T, bytes []byte) {
		p := d.dial(t, modern)
		conn, ok := p.NetConn().(*net.TCPConn)
		if !ok {
			t.Fatal("no TCP connection")
		}
		_, _ = conn.Write(bytes)
		_ = conn.CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the socket goes on: %v", err)
		}
		testutil.Must(t, p.Close())
		d.connect(t).expectNoMessage()
	})
}
