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

// clientFrame encodes a client frame, masked with zeros.
func clientFrame(head byte, payload string) string {
	return frameHeader(head, maskBit, len(payload)) + "\x00\x00\x00\x00" + payload
}

// frameHeader encodes a frame header. size need not match the payload.
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

// sendRaw writes bytes to the connection.
func (client *wsClient) sendRaw(bytes string) {
	client.t.Helper()
	_, err := io.WriteString(client.NetConn(), bytes)
	testutil.Must(client.t, err)
}

const (
	textFrame         = finBit | websocket.TextMessage
	firstTextFrame    = websocket.TextMessage
	continuationFrame = 0
	pingFrame         = finBit | websocket.PingMessage
	closeFrame        = finBit | websocket.CloseMessage
)

// TestInvalidFrames checks the close code for invalid frames, and that another client
// is not affected.
func TestInvalidFrames(t *testing.T) { //nolint:tparallel // the other client's events are counted
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.ReadLimit = 4096 })
	other := server.connect(t)
	other.subscribe("a", "subscription { scripted }")
	source := <-server.schema.sources
	for i, tt := range []struct {
		name, bytes string
		code        int
	}{
		{"unmasked frame", frameHeader(textFrame, 0, 2) + "{}", 1002},
		{"compressed frame", clientFrame(textFrame|rsv1Bit, "{}"), 1002},
		{"compressed ping", clientFrame(pingFrame|rsv1Bit, ""), 1002},
		{"unknown opcode", clientFrame(finBit|3, ""), 1002},
		{"fragmented ping", clientFrame(websocket.PingMessage, ""), 1002},
		{"ping too long", clientFrame(pingFrame, strings.Repeat("x", 126)), 1002},
		{"continuation without a start", clientFrame(finBit|continuationFrame, "{}"), 1002},
		{"message inside a fragmented message", clientFrame(firstTextFrame, "{") + clientFrame(textFrame, "}"), 1002},
		{"close frame of one byte", clientFrame(closeFrame, "x"), 1005},
		{"close frame with a reserved code", clientFrame(closeFrame, "\x03\xed"), 1002},
		{"close frame with an invalid reason", clientFrame(closeFrame, "\x03\xe8\xff"), 1002},
		{"fragments too large in total", clientFrame(firstTextFrame, "") + strings.Repeat(clientFrame(continuationFrame, strings.Repeat(" ", 1000)), 5), 1009},
		{"length of a terabyte", frameHeader(textFrame, maskBit, 1<<40) + "\x00\x00\x00\x00", 1009},
		{"fragmented binary message", clientFrame(websocket.BinaryMessage, "{") + clientFrame(finBit|continuationFrame, "}"), 1003},
		{"incomplete UTF-8 at the end", clientFrame(firstTextFrame, `{"type":"ping","payload":{"a":"`+"\xe2\x82") + clientFrame(finBit|continuationFrame, `"}}`), 1007},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := server.connect(t)
			client.sendRaw(tt.bytes)
			client.expectClose(tt.code)
			source.push(strconv.Itoa(i))
			other.expect(scriptedMessage(i))
		})
	}
	t.Run("negative length", func(t *testing.T) {
		client := server.connect(t)
		client.sendRaw(string([]byte{textFrame, maskBit | 127}) + strings.Repeat("\xff", 12))
		if _, _, err := client.ReadMessage(); err == nil {
			t.Error("the socket is open")
		}
	})
	t.Run("fragmented message with control frames in between", func(t *testing.T) {
		client := server.connect(t)
		pongs := 0
		client.SetPongHandler(func(payload string) error {
			if pongs++; payload != "here?" {
				t.Errorf("got pong %q", payload)
			}
			return nil
		})
		client.sendRaw(clientFrame(firstTextFrame, `{"type":`) + clientFrame(pingFrame, "here?") + clientFrame(continuationFrame, `"pi`) + clientFrame(finBit|continuationFrame, `ng"}`))
		client.expect(`{"type":"pong","payload":null}`)
		if pongs != 1 {
			t.Errorf("got %d pongs, want 1", pongs)
		}
		client.sendRaw(clientFrame(closeFrame, "\x03\xe8bye"))
		client.expectClose(1000)
	})
}

// TestIncompleteFrame checks that a peer that stops in the middle of a frame times out
// like one that sends no pong.
func TestIncompleteFrame(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	for _, bytes := range []string{frameHeader(textFrame, maskBit, 100), frameHeader(textFrame, maskBit, 100) + "\x00\x00\x00\x00{", string(rune(textFrame & 0x7f))} {
		client := server.connect(t)
		client.SetPingHandler(func(string) error { return nil }) // a pong would continue the frame
		client.sendRaw(bytes)
		client.expectClose(1001)
	}
	testutil.Eventually(t, "all sockets to close", func() bool { return server.transports.Connections() == 0 })
}

// TestFrameSizes receives messages whose length is encoded in 1, 3 and 9 bytes.
func TestFrameSizes(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	client := server.connect(t)
	overhead := len(`{"id":"a","type":"next","payload":{"data":{"large":""}}}`)
	for _, size := range []int{0, 125 - overhead, 126 - overhead, 1<<16 - 1 - overhead, 1<<16 - overhead, 1 << 20} {
		client.subscribe("a", fmt.Sprintf("subscription { large(size: %d) }", size))
		client.expect(`{"id":"a","type":"next","payload":{"data":{"large":"`+strings.Repeat("x", size)+`"}}}`, `{"id":"a","type":"complete"}`)
	}
}

// TestTooManyOperations starts 10 000 operations at once. The limit applies, and each
// operation over the limit gets an error.
func TestTooManyOperations(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	const total, allowed = 10_000, 50
	client, other := server.connect(t), server.connect(t)
	go func() {
		for i := range total {
			message := fmt.Sprintf(`{"id":"%d","type":"subscribe","payload":{"query":"subscription { silence }"}}`, i)
			if client.WriteMessage(websocket.TextMessage, []byte(message)) != nil {
				return
			}
		}
	}()
	for i := range total - allowed {
		if i%1000 == 0 {
			other.expectNoMessage()
		}
		want := fmt.Sprintf(`{"id":"%d","type":"error","payload":[{"message":"too many operations on this socket","extensions":{"code":"TOO_MANY_OPERATIONS"}}]}`, allowed+i)
		client.expect(want)
	}
	client.expectNoMessage()
}

// TestTooManyOperations_slowReader does not read the errors. The server stops reading
// from the client and then disconnects it.
func TestTooManyOperations_slowReader(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	client, other := server.connect(t), server.connect(t)
	id := strings.Repeat("x", 10_000) // repeated in each error
	for i := 0; ; i++ {
		err := client.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":"%d%s","type":"subscribe","payload":{"query":"subscription { silence }"}}`, i, id))
		if err != nil {
			break
		}
	}
	testutil.Eventually(t, "the client to be disconnected", func() bool { return server.transports.Connections() == 1 })
	other.expectNoMessage()
}

// FuzzSocketBytes writes any bytes after the handshake. The server closes the socket
// when the client has closed its side, and continues to serve others.
func FuzzSocketBytes(f *testing.F) {
	for _, bytes := range []string{
		clientFrame(textFrame, initMessage), clientFrame(textFrame, initMessage) + clientFrame(textFrame, subscribeSilence), clientFrame(firstTextFrame, `{"type":`) + clientFrame(pingFrame, "x") + clientFrame(finBit|continuationFrame, `"ping"}`),
		frameHeader(textFrame, maskBit, 1<<40), clientFrame(textFrame|rsv1Bit, "{}"), clientFrame(closeFrame, "\x03\xe8"), clientFrame(closeFrame, ""), "GET / HTTP/1.1\r\n\r\n", "\x00", clientFrame(textFrame, "\xff"),
	} {
		f.Add([]byte(bytes))
	}
	server := startServer(f, nil)
	f.Fuzz(func(t *testing.T, bytes []byte) {
		client := server.dial(t, graphqlTransportWS)
		conn, ok := client.NetConn().(*net.TCPConn)
		if !ok {
			t.Fatal("not a TCP connection")
		}
		_, _ = conn.Write(bytes)
		_ = conn.CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the socket is open: %v", err)
		}
		testutil.Must(t, client.Close())
		server.connect(t).expectNoMessage()
	})
}
