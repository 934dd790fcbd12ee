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
	maxQueued      = 64        // frames that wait for one client, beside what its sources keep
	maxQueuedBytes = 256 << 10 // the same in bytes
	chunk          = 16 << 10  // bytes that are written at once, and a frame more; a stuck socket keeps that
	maxCloseReason = 120       // bytes; a control frame has room for 123 (RFC 6455, 5.5)

	// The header of a frame (RFC 6455, 5.2).
	finalFrame = 0x80
	maxSmall   = 125 // bytes of a payload with the shortest header
	length16   = 126 // says that two bytes of length follow
	length64   = 127 // says that eight do
)

// errStuck is why a socket ends whose peer does not read.
var errStuck = errors.New("the peer does not read")

// outbox is what a socket has to say. A goroutine writes for as long as there
// is something to write: what is ready goes out at once, in as few writes as it
// fits into.
type outbox struct {
	mu      sync.Mutex
	writing bool          // a goroutine is at it, or was the last one
	frames  []said        // texts that wait
	waiting int           // their bytes
	room    chan struct{} // closed when there is room again; nil while nobody waits
	owed    []byte        // the payload of the pong that is owed; nil for none
	pingDue bool
	turn    int // the running operation whose turn it is

	since    atomic.Int64   // when the write under way began, as the transports count time; 0 for none
	farewell sync.WaitGroup // done when nothing will be written any more
}

// pong answers a ping of the peer. Of several only the latest needs an answer.
func (s *socket) pong(payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed = []byte(payload)
	s.start()
}

// ping asks whether the peer is there.
func (s *socket) ping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pingDue = true
	s.start()
}

// rouse has the writer look for what there is to do.
func (s *socket) rouse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
}

// start has something written. The lock is held.
func (s *socket) start() {
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

// write writes what there is, and at the socket's end the farewell.
func (s *socket) write() {
	buffer := getBuffer()
	defer putBuffer(buffer)
	var err error
	for s.ctx.Err() == nil {
		buffer.Reset()
		if s.collect(buffer); buffer.Len() > 0 {
			if err = s.put(buffer.Bytes()); err != nil {
				s.cancel(err)
			}
		}
		if s.rest() {
			return
		}
	}
	s.leave(buffer, err)
}

// rest has the writer end unless there is more to do.
func (s *socket) rest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.pingDue || s.owed != nil || len(s.frames) > 0 || slices.ContainsFunc(s.running, (*running).ready) {
		return false
	}
	s.writing, s.frames = false, nil
	return true
}

// put writes whole frames.
func (s *socket) put(frames []byte) error {
	s.since.Store(int64(s.transports.now()))
	defer s.since.Store(0)
	return s.wire.put(frames)
}

// stuckFor is for how long the write under way has taken.
func (s *socket) stuckFor(now time.Duration) time.Duration {
	since := time.Duration(s.since.Load())
	if since == 0 {
		return 0
	}
	return now - since
}

// cut ends the socket of a peer that does not read: a write that is stuck fails.
// By now it may have got through, and the writer rests: then another one leaves.
func (s *socket) cut() {
	if s.ctx.Err() == nil {
		s.transports.cutOff.Add(1)
	}
	s.cancel(errStuck)
	_ = s.wire.SetWriteDeadline(time.Unix(1, 0))
	s.rouse()
}

// collect fills a buffer with about a chunk of frames: what is queued, then what
// sources have, each operation in its turn. Less than a chunk it is when a source
// is at something that takes long: that goes out first.
func (s *socket) collect(buffer *bytes.Buffer) {
	s.collectQueued(buffer, chunk)
	for buffer.Len() < chunk {
		this := s.takeDue()
		if this == nil {
			return
		}
		s.collectFrom(buffer, this)
		if s.isDue(this) {
			return
		}
	}
}

// collectQueued moves control frames and queued texts up to a number of bytes
// into a buffer.
func (s *socket) collectQueued(buffer *bytes.Buffer, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owed != nil {
		appendFrame(buffer, websocket.PongMessage, s.owed)
		s.owed = nil
	}
	if s.pingDue {
		s.pingDue = false
		if keepAlive := s.speaks.keepAlive; keepAlive != "" && s.session != nil {
			appendFrame(buffer, websocket.TextMessage, []byte(`{"type":"`+keepAlive+`"}`))
		}
		appendFrame(buffer, websocket.PingMessage)
	}
	for len(s.frames) > 0 && buffer.Len() < most {
		text := s.frames[0].text
		appendFrame(buffer, websocket.TextMessage, text)
		s.waiting -= len(text)
		s.frames[0] = said{}
		s.frames = s.frames[1:]
	}
	s.tellOfRoom()
}

// takeDue returns the operation whose turn it is of those whose source may have
// something, nil for none.
func (s *socket) takeDue() *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.running {
		s.turn = (s.turn + 1) % len(s.running)
		if this := s.running[s.turn]; this.ready() {
			this.due = false
			return this
		}
	}
	return nil
}

func (s *socket) isDue(this *running) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return this.due
}

// runs reports whether an operation has not ended.
func (s *socket) runs(this *running) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(this.id) == this
}

// collectFrom fills a buffer with what an operation's source has. What it has
// when the client has ended the operation meanwhile is dropped.
func (s *socket) collectFrom(buffer *bytes.Buffer, this *running) {
	session := s.sessionContext()
	for buffer.Len() < chunk {
		payload, over, errs := s.transports.ask(session, this.source)
		switch {
		case over && s.end(this) && s.ctx.Err() == nil:
			appendFrame(buffer, websocket.TextMessage, s.speaks.last(this.id, errs))
			return
		case over || payload == nil || !s.runs(this):
			return
		}
		appendFrame(buffer, websocket.TextMessage, this.before, payload, after)
	}
	s.awaken(this) // there may be more
}

// after is what follows the payload in a message.
var after = []byte{'}'} //nolint:gochecknoglobals // a constant in all but name

// leave sends what was still queued and the close frame within a second, and
// has the reader wait that long for the peer to take them. After a write that
// failed there is nothing more to say.
func (s *socket) leave(buffer *bytes.Buffer, failed error) {
	defer s.farewell.Done()
	defer s.readUntil(drainTime)
	end, ok := errors.AsType[*farewell](context.Cause(s.ctx))
	switch {
	case !ok || failed != nil:
		_ = s.wire.Close()
	case end.code != closeSilently:
		buffer.Reset()
		s.collectQueued(buffer, 2*maxQueuedBytes)
		reason := strings.ToValidUTF8(end.reason[:min(len(end.reason), maxCloseReason)], "")
		appendFrame(buffer, websocket.CloseMessage, websocket.FormatCloseMessage(end.code, reason))
		_ = s.put(buffer.Bytes())
	}
}

func (s *socket) readUntil(d time.Duration) {
	_ = s.wire.SetReadDeadline(time.Now().Add(d)) //nolint:forbidigo // a real connection's deadline
}

// appendFrame adds a whole frame, unmasked as a server's are, whose payload is
// given in parts.
func appendFrame(buffer *bytes.Buffer, kind byte, parts ...[]byte) {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	header := append(buffer.AvailableBuffer(), finalFrame|kind)
	switch {
	case size <= maxSmall:
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
