package transport

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// protocol is how two sides of a socket speak.
type protocol struct {
	name              string
	begin, end        string // the client's words for an operation
	data, error, done string // the server's
	terminate         string // the client's word for the end of the socket, empty for none
	keepAlive         string // the server's sign of life, empty for none
	ack               []string
	refused           func(*gqlerror.Error) []byte // told before the socket of a refused init closes
	oneError          bool                         // an error's payload is one error, not a list
}

// The protocols: graphql-transport-ws, and the one of subscriptions-transport-ws
// before it.
var (
	modern = &protocol{ //nolint:gochecknoglobals // a constant in all but name
		name: "graphql-transport-ws", begin: "subscribe", end: "complete", data: "next", error: "error", done: "complete",
		ack: []string{`{"type":"connection_ack"}`},
	}
	legacy = &protocol{ //nolint:gochecknoglobals // a constant in all but name
		name: "graphql-ws", begin: "start", end: "stop", data: "data", error: "error", done: "complete",
		terminate: "connection_terminate", keepAlive: "ka", ack: []string{`{"type":"connection_ack"}`, `{"type":"ka"}`},
		refused: func(err *gqlerror.Error) []byte {
			return frame("", "connection_error", func(b *bytes.Buffer) { writeJSON(b, map[string]any{"message": err.Message}) })
		},
		oneError: true,
	}
)

// protocolOf returns the protocol that was agreed on; a client that named none
// speaks the older one.
func protocolOf(name string) *protocol {
	if name == modern.name {
		return modern
	}
	return legacy
}

// pick returns the first protocol offered that is spoken here.
func pick(offered []string) string {
	for _, name := range offered {
		if slices.Contains([]string{modern.name, legacy.name}, name) {
			return name
		}
	}
	return ""
}

// message is what a client says.
type message struct {
	Type    string          `json:"type"`
	ID      *string         `json:"id"`
	Payload json.RawMessage `json:"payload"`
}

// handle answers one message and reports whether the socket goes on.
func (s *socket) handle(text []byte) bool {
	var m message
	if decode(text, &m) != nil || m.Type == "" {
		s.close(closeBadMessage, "Invalid message received")
		return false
	}
	switch m.Type {
	case "connection_init":
		var payload map[string]any
		if len(m.Payload) > 0 && decode(m.Payload, &payload) != nil {
			s.close(closeBadMessage, "The payload of connection_init must be an object")
			return false
		}
		return s.initialise(payload)
	case "ping":
		if s.speaks == modern {
			s.send(s.ctx, said{text: pong(m.Payload)})
			return true
		}
	case "pong":
		if s.speaks == modern {
			return true
		}
	case s.speaks.begin:
		return s.subscribe(&m)
	case s.speaks.end:
		if m.ID == nil {
			break
		}
		s.stop(*m.ID)
		return true
	case s.speaks.terminate:
		s.close(closeNormal, "")
		return false
	}
	s.close(closeBadMessage, "Invalid message received")
	return false
}

// subscribe begins the operation of a message and reports whether the socket
// goes on.
func (s *socket) subscribe(m *message) bool {
	if s.sessionContext() == nil {
		s.close(closeUnauthorized, "Unauthorized")
		return false
	}
	if m.ID == nil || *m.ID == "" || len(m.Payload) == 0 {
		s.close(closeBadMessage, "An operation needs an id and a payload")
		return false
	}
	params, refused := readJSON(m.Payload)
	if refused != nil {
		s.close(closeBadMessage, refused.text)
		return false
	}
	s.begin(*m.ID, params)
	return true
}

func pong(payload json.RawMessage) []byte {
	return frame("", "pong", func(b *bytes.Buffer) {
		if len(payload) == 0 {
			payload = json.RawMessage("null")
		}
		b.Write(payload)
	})
}

func (p *protocol) next(id string, response *graphql.Response) []byte {
	return frame(id, p.data, func(b *bytes.Buffer) { writeResponse(b, response) })
}

func (p *protocol) fail(id string, errs gqlerror.List) []byte {
	return frame(id, p.error, func(b *bytes.Buffer) {
		if p.oneError {
			writeJSON(b, errs[0])
			return
		}
		writeJSON(b, errs)
	})
}

// last tells how an operation ended.
func (p *protocol) last(id string, errs gqlerror.List) []byte {
	if len(errs) > 0 {
		return p.fail(id, errs)
	}
	return frame(id, p.done, nil)
}

// before is what stands before the payload of each response of an operation.
func (p *protocol) before(id string) []byte {
	return bytes.TrimSuffix(frame(id, p.data, func(*bytes.Buffer) {}), after)
}

// frame writes a message.
func frame(id, kind string, payload func(*bytes.Buffer)) []byte {
	buffer := getBuffer()
	defer putBuffer(buffer)
	buffer.WriteByte('{')
	if id != "" {
		buffer.WriteString(`"id":`)
		writeJSON(buffer, id)
		buffer.WriteByte(',')
	}
	buffer.WriteString(`"type":` + strconv.Quote(kind))
	if payload != nil {
		buffer.WriteString(`,"payload":`)
		payload(buffer)
	}
	buffer.WriteByte('}')
	return bytes.Clone(buffer.Bytes())
}
