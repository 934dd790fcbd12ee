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
	maxQueuedMessages = 64        // queued messages per socket, in addition to what its sources buffer
	maxQueuedBytes    = 256 << 10 // queued bytes per socket
	chunkSize         = 16 << 10  // bytes per write, exceeded by at most one frame; a blocked socket holds as much
	maxCloseReason    = 120       // bytes; a close frame has room for 123 (RFC 6455, 5.5)

	// Frame headers (RFC 6455, 5.2).
	finBit          = 0x80
	maxShortPayload = 125 // bytes of payload with a 2-byte header
	length16        = 126 // a 2-byte length follows
	length64        = 127 // an 8-byte length follows
)

// errPeerNotReading is the cause of a socket closed by a write timeout.
var errPeerNotReading = errors.New("the peer is not reading")

// socketWriter is the sending half of a socket. A goroutine writes while there is
// something to write. It sends data at once, in as few writes as possible.
type socketWriter struct {
	mu          sync.Mutex
	writing     bool              // the writer runs, or has run for the last time
	queue       []outgoingMessage // the send queue
	queuedBytes int               // size of the queue in bytes
	space       chan struct{}     // closed when the queue has space; nil if no sender waits
	pendingPong []byte            // payload of the pong to send; nil for none
	pendingPing bool
	nextTurn    int // index of the operation polled last

	writeStarted atomic.Int64   // start of the current write, see Transports.now; 0 for none
	writerDone   sync.WaitGroup // done when the writer has stopped for the last time
}

// queuePong queues a pong. It replaces a queued one: only the latest ping needs a
// response (RFC 6455, 5.5.3).
func (s *socket) queuePong(payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pendingPong = []byte(payload)
	s.startWriter()
}

// queuePing queues a ping.
func (s *socket) queuePing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pendingPing = true
	s.startWriter()
}

// wakeWriter starts the writer.
func (s *socket) wakeWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startWriter()
}

// startWriter starts the writer unless it is running. The caller holds mu.
func (s *socket) startWriter() {
	if !s.writing {
		s.writing = true
		go s.runWriter()
	}
}

// runWriter writes frames until there are none. When the socket is closed, it sends
// the close frame.
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
		if ending := s.endReached(); ending != nil {
			s.close(ending.code, ending.reason)
		}
		if s.tryStopWriter() {
			return
		}
	}
	s.sendCloseFrame(buffer, err)
}

// tryStopWriter marks the writer as stopped unless there is more to write.
func (s *socket) tryStopWriter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.pendingPing || s.pendingPong != nil || len(s.queue) > 0 || slices.ContainsFunc(s.activeOperations, (*operation).ready) {
		return false
	}
	s.writing, s.queue = false, nil
	return true
}

// endReached returns how to close a socket that is ending and has sent the responses of
// its last operations, else nil.
func (s *socket) endReached() *closeError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.activeOperations) > 0 || len(s.queue) > 0 {
		return nil
	}
	return s.ending
}

// writeFrames writes complete frames.
func (s *socket) writeFrames(frames []byte) error {
	s.writeStarted.Store(int64(s.transports.now()))
	defer s.writeStarted.Store(0)
	return s.conn.writeFrames(frames)
}

// currentWriteTime returns how long the current write has taken, or 0.
func (s *socket) currentWriteTime(now time.Duration) time.Duration {
	start := time.Duration(s.writeStarted.Load())
	if start == 0 {
		return 0
	}
	return now - start
}

// disconnectStuck closes the socket of a peer that does not read. It makes a blocked
// write fail. It also wakes the writer, because the write may just have succeeded.
func (s *socket) disconnectStuck() {
	if s.ctx.Err() == nil {
		s.transports.cutOff.Add(1)
	}
	s.cancel(errPeerNotReading)
	_ = s.conn.SetWriteDeadline(time.Unix(1, 0))
	s.wakeWriter()
}

// collectFrames appends about one chunk of frames to buffer: queued messages first,
// then responses of sources in round-robin order. It stops early when a source needs
// more time, so that the frames so far are sent first.
func (s *socket) collectFrames(buffer *bytes.Buffer) {
	s.collectQueued(buffer, chunkSize)
	for buffer.Len() < chunkSize {
		op := s.takeReady()
		if op == nil {
			return
		}
		s.collectFromSource(buffer, op)
		if s.isPending(op) {
			return
		}
	}
}

// collectQueued moves control frames and queued messages to buffer, up to maxBytes.
func (s *socket) collectQueued(buffer *bytes.Buffer, maxBytes int) {
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
	for len(s.queue) > 0 && buffer.Len() < maxBytes {
		text := s.queue[0].text
		appendFrame(buffer, websocket.TextMessage, text)
		s.queuedBytes -= len(text)
		s.queue[0] = outgoingMessage{}
		s.queue = s.queue[1:]
	}
	s.signalSpace()
}

// takeReady returns the next operation whose source may have a response, or nil.
func (s *socket) takeReady() *operation {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.activeOperations {
		s.nextTurn = (s.nextTurn + 1) % len(s.activeOperations)
		if op := s.activeOperations[s.nextTurn]; op.ready() {
			op.pending = false
			return op
		}
	}
	return nil
}

func (s *socket) isPending(op *operation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return op.pending
}

// isRunning reports whether an operation has not ended.
func (s *socket) isRunning(op *operation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.findOperation(op.id) == op
}

// collectFromSource appends the responses that a source has ready. It drops a response
// if the client has stopped the operation.
func (s *socket) collectFromSource(buffer *bytes.Buffer, op *operation) {
	session := s.sessionContext()
	for buffer.Len() < chunkSize {
		payload, done, errs := s.transports.pullSource(session, op.source)
		switch {
		case done && s.endOperation(op) && s.ctx.Err() == nil:
			appendFrame(buffer, websocket.TextMessage, s.protocol.endMessage(op.id, errs))
			return
		case done || payload == nil || !s.isRunning(op):
			return
		}
		appendFrame(buffer, websocket.TextMessage, op.dataPrefix, payload, dataSuffix)
	}
	s.wakeOperation(op) // the source may have more
}

// dataSuffix follows the payload of a data message.
var dataSuffix = []byte{'}'} //nolint:gochecknoglobals // a constant

// sendCloseFrame sends the queued messages and the close frame within drainTimeout,
// and gives the peer as long to read them. It sends nothing after a failed write.
func (s *socket) sendCloseFrame(buffer *bytes.Buffer, writeErr error) {
	defer s.writerDone.Done()
	defer s.setReadTimeout(drainTimeout)
	closeErr, ok := errors.AsType[*closeError](context.Cause(s.ctx))
	switch {
	case !ok || writeErr != nil:
		_ = s.conn.Close()
	case closeErr.code != closeWithoutFrame:
		buffer.Reset()
		s.collectQueued(buffer, 2*maxQueuedBytes)
		reason := strings.ToValidUTF8(closeErr.reason[:min(len(closeErr.reason), maxCloseReason)], "")
		appendFrame(buffer, websocket.CloseMessage, websocket.FormatCloseMessage(closeErr.code, reason))
		_ = s.writeFrames(buffer.Bytes())
	}
}

func (s *socket) setReadTimeout(d time.Duration) {
	_ = s.conn.SetReadDeadline(time.Now().Add(d)) //nolint:forbidigo // a real connection's deadline
}

// appendFrame appends an unmasked frame. Its payload is the concatenation of parts.
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
