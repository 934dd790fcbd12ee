package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

const (
	maxQueuedMessages = 64        // frames that wait for one client, beside what its sources keep
	maxQueuedBytes    = 256 << 10 // the same in bytes
	chunkSize         = 16 << 10  // bytes that are written at once, and a frame more; a stuck socket keeps that
	maxCloseReason    = 120       // bytes; a control frame has room for 123 (RFC 6455, 5.5)

	// The header of a frame (RFC 6455, 5.2).
	finBit          = 0x80
	maxShortPayload = 125 // bytes of a payload with the shortest header
	length16        = 126 // says that two bytes of length follow
	length64        = 127 // says that eight do
)

// errPeerNotReading is why a socket ends whose peer does not read.
var errPeerNotReading = errors.New("the peer does not read")

// socketWriter is what a socket has to say. A goroutine writes for as long as there
// is something to write: what is ready goes out at once, in as few writes as it
// fits into.
type socketWriter struct {
	mu          sync.Mutex
	writing     bool              // a goroutine is at it, or was the last one
	queue       []outgoingMessage // texts that wait
	queuedBytes int               // their bytes
	space       chan struct{}     // closed when there is room again; nil while nobody waits
	pendingPong []byte            // the payload of the pong that is owed; nil for none
	pendingPing bool
	nextTurn    int // the running operation whose turn it is

	writeStarted atomic.Int64   // when the write under way began, as the transports count time; 0 for none
	writerDone   sync.WaitGroup // done when nothing will be written any more
}

// queuePong answers a ping of the peer. Of several only the latest needs an answer.
func (s *socket) queuePong(payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pendingPong = []byte(payload)
	s.startWriter()
}

// queuePing asks whether the peer is there.
func (s *socket) queuePing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pendingPing = true
	s.startWriter()
}

// wakeWriter has the writer look for what there is to do.
func (s *socket) wakeWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startWriter()
}

// startWriter has something written. The lock is held.
func (s *socket) startWriter() {
	if !s.writing {
		s.writing = true
		go s.runWriter()
	}
}

// runWriter writes what there is, and at the socket's end the farewell.
func (s *socket) runWriter() {
	buffer := getBuffer()
	defer putBuffer(buffer)
	var err error
	for s.ctx.Err() == nil {
		buffer.Reset()
		if s.collectFrames(buffer); buffer.Len() > 0 {
			if err = s.writeFrames(buffer.Bytes()); err != nil {
				s.cancel(err)
			}
		}
		if s.tryStopWriter() {
			return
		}
	}
	s.sendCloseFrame(buffer, err)
}

// tryStopWriter has the writer end unless there is more to do.
func (s *socket) tryStopWriter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.pendingPing || s.pendingPong != nil || len(s.queue) > 0 || slices.ContainsFunc(s.activeOperations, (*operation).ready) {
		return false
	}
	s.writing, s.queue = false, nil
	return true
}

// writeFrames writes whole frames.
func (s *socket) writeFrames(frames []byte) error {
	s.writeStarted.Store(int64(s.transports.now()))
	defer s.writeStarted.Store(0)
	return s.conn.writeFrames(frames)
}

// currentWriteTime is for how long the write under way has taken.
func (s *socket) currentWriteTime(now time.Duration) time.Duration {
	since := time.Duration(s.writeStarted.Load())
	if since == 0 {
		return 0
	}
	return now - since
}

// disconnectStuck ends the socket of a peer that does not read: a write that is stuck fails.
// By now it may have got through, and the writer rests: then another one leaves.
func (s *socket) disconnectStuck() {
	if s.ctx.Err() == nil {
		s.transports.cutOff.Add(1)
	}
	s.cancel(errPeerNotReading)
	_ = s.conn.SetWriteDeadline(time.Unix(1, 0))
	s.wakeWriter()
}

// collectFrames fills a buffer with about a chunk of frames: what is queued, then what
// sources have, each operation in its turn. Less than a chunk it is when a source
// is at something that takes long: that goes out first.
func (s *socket) collectFrames(buffer *bytes.Buffer) {
	s.collectQueued(buffer, chunkSize)
	for buffer.Len() < chunkSize {
		this := s.takeReady()
		if this == nil {
			return
		}
		s.collectFromSource(buffer, this)
		if s.isPending(this) {
			return
		}
	}
}

// collectQueued moves control frames and queued texts up to a number of bytes
// into a buffer.
func (s *socket) collectQueued(buffer *bytes.Buffer, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pendingPong != nil {
		appendFrame(buffer, websocket.PongMessage, s.pendingPong)
		s.pendingPong = nil
	}
	if s.pendingPing {
		s.pendingPing = false
		if keepAlive := s.protocol.keepAliveType; keepAlive != "" && s.session != nil {
			appendFrame(buffer, websocket.TextMessage, []byte(`{"type":"`+keepAlive+`"}`))
		}
		appendFrame(buffer, websocket.PingMessage)
	}
	for len(s.queue) > 0 && buffer.Len() < most {
		text := s.queue[0].text
		appendFrame(buffer, websocket.TextMessage, text)
		s.queuedBytes -= len(text)
		s.queue[0] = outgoingMessage{}
		s.queue = s.queue[1:]
	}
	s.signalSpace()
}

// takeReady returns the operation whose turn it is of those whose source may have
// something, nil for none.
func (s *socket) takeReady() *operation {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.activeOperations {
		s.nextTurn = (s.nextTurn + 1) % len(s.activeOperations)
		if this := s.activeOperations[s.nextTurn]; this.ready() {
			this.pending = false
			return this
		}
	}
	return nil
}

func (s *socket) isPending(this *operation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return this.pending
}

// isRunning reports whether an operation has not ended.
func (s *socket) isRunning(this *operation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.findOperation(this.id) == this
}

// collectFromSource fills a buffer with what an operation's source has. What it has
// when the client has ended the operation meanwhile is dropped.
func (s *socket) collectFromSource(buffer *bytes.Buffer, this *operation) {
	session := s.sessionContext()
	for buffer.Len() < chunkSize {
		payload, over, errs := s.transports.pullSource(session, this.source)
		switch {
		case over && s.endOperation(this) && s.ctx.Err() == nil:
			appendFrame(buffer, websocket.TextMessage, s.protocol.endMessage(this.id, errs))
			return
		case over || payload == nil || !s.isRunning(this):
			return
		}
		appendFrame(buffer, websocket.TextMessage, this.dataPrefix, payload, dataSuffix)
	}
	s.wakeOperation(this) // there may be more
}

// dataSuffix is what follows the payload in a message.
var dataSuffix = []byte{'}'} //nolint:gochecknoglobals // a constant in all but name

// sendCloseFrame sends what was still queued and the close frame within a second, and
// has the reader wait that long for the peer to take them. After a write that
// failed there is nothing more to say.
func (s *socket) sendCloseFrame(buffer *bytes.Buffer, failed error) {
	defer s.writerDone.Done()
	defer s.setReadTimeout(drainTimeout)
	end, ok := errors.AsType[*closeError](context.Cause(s.ctx))
	switch {
	case !ok || failed != nil:
		_ = s.conn.Close()
	case end.code != closeSilently:
		buffer.Reset()
		s.collectQueued(buffer, 2*maxQueuedBytes)
		reason := strings.ToValidUTF8(end.reason[:min(len(end.reason), maxCloseReason)], "")
		appendFrame(buffer, websocket.CloseMessage, websocket.FormatCloseMessage(end.code, reason))
		_ = s.writeFrames(buffer.Bytes())
	}
}

func (s *socket) setReadTimeout(d time.Duration) {
	_ = s.conn.SetReadDeadline(time.Now().Add(d)) //nolint:forbidigo // a real connection's deadline
}

// appendFrame adds a whole frame, unmasked as a server's are, whose payload is
// given in parts.
func appendFrame(buffer *bytes.Buffer, kind byte, parts ...[]byte) {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	header := append(buffer.AvailableBuffer(), finBit|kind)
	switch {
	case size <= maxShortPayload:
		header = append(header, byte(size))
	case size < 1<<16:
		header = binary.BigEndian.AppendUint16(append(header, length16), uint16(size))
	default:
		header = binary.BigEndian.AppendUint64(append(header, length64), uint64(size))
	}
	buffer.Write(header)
	for _, part := range parts {
		buffer.Write(part)
	}
}
