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
)

const (
	fin    = 0x80
	rsv1   = 0x40
	masked = 0x80
)

// frame is one frame as a client sends it: with a mask, of zeros.
func frame(head byte, payload string) string {
	return header(head, masked, len(payload)) + "\x00\x00\x00\x00" + payload
}

// header begins a frame whose length may be a lie.
func header(head, mask byte, size int) string {
	switch {
	case size < 126:
		return string([]byte{head, mask | byte(size)})
	case size < 1<<16:
		return string(binary.BigEndian.AppendUint16([]byte{head, mask | 126}, uint16(size)))
	default:
		return string(binary.BigEndian.AppendUint64([]byte{head, mask | 127}, uint64(size)))
	}
}

// sends puts bytes on the wire as they are.
func (p *peer) sends(bytes string) {
	p.t.Helper()
	_, err := io.WriteString(p.NetConn(), bytes)
	must(p.t, err)
}

const (
	text         = fin | websocket.TextMessage
	begins       = websocket.TextMessage
	continuation = 0
	ping         = fin | websocket.PingMessage
	closes       = fin | websocket.CloseMessage
)

// TestBrokenFrames: a peer that breaks the framing is told how, and nobody
// beside it notices.
func TestBrokenFrames(t *testing.T) { //nolint:tparallel // what is heard beside them is counted
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.ReadLimit = 4096 })
	beside := d.session(t)
	beside.subscribes("a", "subscription { handed }")
	script := <-d.toy.scripts
	for i, row := range []struct {
		name, bytes string
		code        int
	}{
		{"a frame without a mask", header(text, 0, 2) + "{}", 1002},
		{"a compressed frame", frame(text|rsv1, "{}"), 1002},
		{"a compressed ping", frame(ping|rsv1, ""), 1002},
		{"a kind of frame that there is not", frame(fin|3, ""), 1002},
		{"a ping in parts", frame(websocket.PingMessage, ""), 1002},
		{"a ping that is too long", frame(ping, strings.Repeat("x", 126)), 1002},
		{"a part of nothing", frame(fin|continuation, "{}"), 1002},
		{"a message within another", frame(begins, "{") + frame(text, "}"), 1002},
		{"a close of one byte", frame(closes, "x"), 1005},
		{"a close with a code that none may send", frame(closes, "\x03\xed"), 1002},
		{"a close with a reason that is no text", frame(closes, "\x03\xe8\xff"), 1002},
		{"parts that are too much together", frame(begins, "") + strings.Repeat(frame(continuation, strings.Repeat(" ", 1000)), 5), 1009},
		{"a length of a terabyte", header(text, masked, 1<<40) + "\x00\x00\x00\x00", 1009},
		{"a binary message in parts", frame(websocket.BinaryMessage, "{") + frame(fin|continuation, "}"), 1003},
		{"a letter cut in two by the end", frame(begins, `{"type":"ping","payload":{"a":"`+"\xe2\x82") + frame(fin|continuation, `"}}`), 1007},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := d.session(t)
			p.sends(row.bytes)
			p.isClosed(row.code)
			script.says(strconv.Itoa(i))
			beside.hears(handed(i))
		})
	}
	t.Run("a length below zero", func(t *testing.T) {
		p := d.session(t)
		p.sends(string([]byte{text, masked | 127}) + strings.Repeat("\xff", 12))
		if _, _, err := p.ReadMessage(); err == nil {
			t.Error("the socket goes on")
		}
	})
	t.Run("a message in parts is one, with control frames in between", func(t *testing.T) {
		p := d.session(t)
		pongs := 0
		p.SetPongHandler(func(payload string) error {
			if pongs++; payload != "here?" {
				t.Errorf("the pong says %q", payload)
			}
			return nil
		})
		p.sends(frame(begins, `{"type":`) + frame(ping, "here?") + frame(continuation, `"pi`) + frame(fin|continuation, `ng"}`))
		p.hears(`{"type":"pong","payload":null}`)
		if pongs != 1 {
			t.Errorf("%d pongs came", pongs)
		}
		p.sends(frame(closes, "\x03\xe8bye"))
		p.isClosed(1000)
	})
}

// TestHalfAFrame: a peer that stops in the middle of a frame is let go as a dead
// one is.
func TestHalfAFrame(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	for _, bytes := range []string{header(text, masked, 100), header(text, masked, 100) + "\x00\x00\x00\x00{", string(rune(text & 0x7f))} {
		p := d.session(t)
		p.SetPingHandler(func(string) error { return nil }) // an answer would be the rest of the frame
		p.sends(bytes)
		p.isClosed(1001)
	}
	await(t, "nothing is left", func() bool { return d.transports.Connections() == 0 })
}

// TestSizesOfFrames: messages whose length is written in one, three and nine
// bytes come whole.
func TestSizesOfFrames(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	p := d.session(t)
	around := len(`{"id":"a","type":"next","payload":{"data":{"large":""}}}`)
	for _, size := range []int{0, 125 - around, 126 - around, 1<<16 - 1 - around, 1<<16 - around, 1 << 20} {
		p.subscribes("a", fmt.Sprintf("subscription { large(size: %d) }", size))
		p.hears(`{"id":"a","type":"next","payload":{"data":{"large":"`+strings.Repeat("x", size)+`"}}}`, `{"id":"a","type":"complete"}`)
	}
}

// TestManySubscribes: a client that begins ten thousand operations at once gets
// as many as it may have, and an error for each of the others.
func TestManySubscribes(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	const many, allowed = 10_000, 50
	p, other := d.session(t), d.session(t)
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
			other.isQuiet()
		}
		want := fmt.Sprintf(`{"id":"%d","type":"error","payload":[{"message":"too many operations on this socket","extensions":{"code":"TOO_MANY_OPERATIONS"}}]}`, allowed+i)
		p.hears(want)
	}
	p.isQuiet()
}

// TestManySubscribesUnread: one that does the same and reads none of the answers
// is held back, and then cut off.
func TestManySubscribesUnread(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	p, other := d.session(t), d.session(t)
	id := strings.Repeat("x", 10_000) // comes back in each answer
	for i := 0; ; i++ {
		err := p.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":"%d%s","type":"subscribe","payload":{"query":"subscription { silence }"}}`, i, id))
		if err != nil {
			break
		}
	}
	await(t, "it is cut off", func() bool { return d.transports.Connections() == 1 })
	other.isQuiet()
}

// FuzzBytes: whatever comes after the handshake, the server ends the socket when
// the client has nothing more to say, and serves others.
func FuzzBytes(f *testing.F) {
	for _, bytes := range []string{
		frame(text, hello), frame(text, hello) + frame(text, silence), frame(begins, `{"type":`) + frame(ping, "x") + frame(fin|continuation, `"ping"}`),
		header(text, masked, 1<<40), frame(text|rsv1, "{}"), frame(closes, "\x03\xe8"), frame(closes, ""), "GET / HTTP/1.1\r\n\r\n", "\x00", frame(text, "\xff"),
	} {
		f.Add([]byte(bytes))
	}
	d := open(f, nil)
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
		must(t, p.Close())
		d.session(t).isQuiet()
	})
}
