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
	name                              string
	startType, stopType               string // the client's words for an operation
	dataType, errorType, completeType string // the server's
	terminateType                     string // the client's word for the end of the socket, empty for none
	keepAliveType                     string // the server's sign of life, empty for none
	ackMessages                       []string
	connectionError                   func(*gqlerror.Error) []byte // told before the socket of a refused init closes
	singleError                       bool                         // an error's payload is one error, not a list
}

// The protocols: graphql-transport-ws, and the one of subscriptions-transport-ws
// before it.
var (
	modern = &protocol{ //nolint:gochecknoglobals // a constant in all but name
		name: "graphql-transport-ws", startType: "subscribe", stopType: "complete", dataType: "next", errorType: "error", completeType: "complete",
		ackMessages: []string{`{"type":"connection_ack"}`},
	}
	legacy = &protocol{ //nolint:gochecknoglobals // a constant in all but name
		name: "graphql-ws", startType: "start", stopType: "stop", dataType: "data", errorType: "error", completeType: "complete",
		terminateType: "connection_terminate", keepAliveType: "ka", ackMessages: []string{`{"type":"connection_ack"}`, `{"type":"ka"}`},
		connectionError: func(err *gqlerror.Error) []byte {
			return encodeMessage("", "connection_error", func(b *bytes.Buffer) { writeJSON(b, map[string]any{"message": err.Message}) })
		},
		singleError: true,
	}
)

// protocolByName returns the protocol that was agreed on; a client that named none
// speaks the older one.
func protocolByName(name string) *protocol {
	if name == modern.name {
		return modern
	}
	return legacy
}

// negotiateProtocol returns the first protocol offered that is spoken here.
func negotiateProtocol(offered []string) string {
	for _, name := range offered {
		if slices.Contains([]string{modern.name, legacy.name}, name) {
			return name
		}
	}
	return ""
}

// clientMessage is what a client says.
type clientMessage struct {
	Type    string          `json:"type"`
	ID      *string         `json:"id"`
	Payload json.RawMessage `json:"payload"`
}

// handleMessage answers one message and reports whether the socket goes on.
func (s *socket) handleMessage(text []byte) bool {
	var m clientMessage
	if decodeJSON(text, &m) != nil || m.Type == "" {
		s.close(closeBadMessage, "Invalid message received")
		return false
	}
	switch m.Type {
	case "connection_init":
		var payload map[string]any
		if len(m.Payload) > 0 && decodeJSON(m.Payload, &payload) != nil {
			s.close(closeBadMessage, "The payload of connection_init must be an object")
			return false
		}
		return s.handleInit(payload)
	case "ping":
		if s.protocol == modern {
			s.send(s.ctx, outgoingMessage{text: pongMessage(m.Payload)})
			return true
		}
	case "pong":
		if s.protocol == modern {
			return true
		}
	case s.protocol.startType:
		return s.handleSubscribe(&m)
	case s.protocol.stopType:
		if m.ID == nil {
			break
		}
		s.stopOperation(*m.ID)
		return true
	case s.protocol.terminateType:
		s.close(closeNormal, "")
		return false
	}
	s.close(closeBadMessage, "Invalid message received")
	return false
}

// handleSubscribe begins the operation of a message and reports whether the socket
// goes on.
func (s *socket) handleSubscribe(m *clientMessage) bool {
	if s.sessionContext() == nil {
		s.close(closeUnauthorized, "Unauthorized")
		return false
	}
	if m.ID == nil || *m.ID == "" || len(m.Payload) == 0 {
		s.close(closeBadMessage, "An operation needs an id and a payload")
		return false
	}
	params, refused := readJSONParams(m.Payload)
	if refused != nil {
		s.close(closeBadMessage, refused.message)
		return false
	}
	s.startOperation(*m.ID, params)
	return true
}

func pongMessage(payload json.RawMessage) []byte {
	return encodeMessage("", "pong", func(b *bytes.Buffer) {
		if len(payload) == 0 {
			payload = json.RawMessage("null")
		}
		b.Write(payload)
	})
}

func (p *protocol) dataMessage(id string, response *graphql.Response) []byte {
	return encodeMessage(id, p.dataType, func(b *bytes.Buffer) { writeResponse(b, response) })
}

func (p *protocol) errorMessage(id string, errs gqlerror.List) []byte {
	return encodeMessage(id, p.errorType, func(b *bytes.Buffer) {
		if p.singleError {
			writeJSON(b, errs[0])
			return
		}
		writeJSON(b, errs)
	})
}

// endMessage tells how an operation ended.
func (p *protocol) endMessage(id string, errs gqlerror.List) []byte {
	if len(errs) > 0 {
		return p.errorMessage(id, errs)
	}
	return encodeMessage(id, p.completeType, nil)
}

// dataPrefix is what stands before the payload of each response of an operation.
func (p *protocol) dataPrefix(id string) []byte {
	return bytes.TrimSuffix(encodeMessage(id, p.dataType, func(*bytes.Buffer) {}), dataSuffix)
}

// encodeMessage writes a message.
func encodeMessage(id, kind string, payload func(*bytes.Buffer)) []byte {
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
