package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/internal/jsontext"
	"agentmarket.space/server/models"
)

// protocol is a WebSocket subprotocol.
type protocol struct {
	name                              string
	startType, stopType               string // client message types that start and stop an operation
	dataType, errorType, completeType string // server message types
	terminateType                     string // client message type that closes the socket; "" for none
	keepAliveType                     string // server heartbeat message type; "" for none
	ackMessages                       []string
	connectionError                   func(*gqlerror.Error) []byte // message sent before closing after a failed init; nil for none
	singleError                       bool                         // the payload of an error message is one error, not a list
}

// The supported protocols. legacy is the protocol of subscriptions-transport-ws.
var (
	graphqlTransportWS = &protocol{ //nolint:gochecknoglobals // a constant
		name: "graphql-transport-ws", startType: "subscribe", stopType: "complete", dataType: "next", errorType: "error", completeType: "complete",
		ackMessages: []string{`{"type":"connection_ack"}`},
	}
	subscriptionsTransportWS = &protocol{ //nolint:gochecknoglobals // a constant
		name: "graphql-ws", startType: "start", stopType: "stop", dataType: "data", errorType: "error", completeType: "complete",
		terminateType: "connection_terminate", keepAliveType: "ka", ackMessages: []string{`{"type":"connection_ack"}`, `{"type":"ka"}`},
		connectionError: func(err *gqlerror.Error) []byte {
			return encodeMessage("", "connection_error", func(b *bytes.Buffer) { writeJSON(b, map[string]any{"message": err.Message}) })
		},
		singleError: true,
	}
)

// protocolByName returns the negotiated protocol. A client that named none uses the
// legacy protocol.
func protocolByName(name string) *protocol {
	if name == graphqlTransportWS.name {
		return graphqlTransportWS
	}
	return subscriptionsTransportWS
}

// negotiateProtocol returns the first supported protocol in offered, or "".
func negotiateProtocol(offered []string) string {
	for _, name := range offered {
		if slices.Contains([]string{graphqlTransportWS.name, subscriptionsTransportWS.name}, name) {
			return name
		}
	}
	return ""
}

// clientMessage is a message from the client.
type clientMessage struct {
	Type    string          `json:"type"`
	ID      *string         `json:"id"`
	Payload json.RawMessage `json:"payload"`
}

// handleMessage handles one client message. It returns false if it closed the socket.
func (s *socket) handleMessage(text []byte) bool {
	var msg clientMessage
	if decodeJSON(text, &msg) != nil || msg.Type == "" {
		s.close(closeBadMessage, "Invalid message received")
		return false
	}
	if reason := changedByDecoding(text); reason != "" {
		s.close(closeBadMessage, reason)
		return false
	}
	switch msg.Type {
	case "connection_init":
		var payload map[string]any
		if len(msg.Payload) > 0 && decodeJSON(msg.Payload, &payload) != nil {
			s.close(closeBadMessage, "The payload of connection_init must be an object")
			return false
		}
		if reqErr := checkText(msg.Payload); reqErr != nil {
			s.close(closeBadMessage, reqErr.message)
			return false
		}
		return s.handleInit(payload)
	case "ping":
		if s.protocol == graphqlTransportWS {
			s.send(s.ctx, outgoingMessage{text: pongMessage(msg.Payload)})
			return true
		}
	case "pong":
		if s.protocol == graphqlTransportWS {
			return true
		}
	case s.protocol.startType:
		return s.handleSubscribe(&msg)
	case s.protocol.stopType:
		if msg.ID == nil {
			break
		}
		s.stopOperation(*msg.ID)
		return true
	case s.protocol.terminateType:
		s.close(closeNormal, "")
		return false
	}
	s.close(closeBadMessage, "Invalid message received")
	return false
}

// changedByDecoding returns why a message cannot be decoded without changing its text, ""
// if it can. Payloads are checked when they are decoded; that of a ping is sent back as it
// is.
func changedByDecoding(text []byte) string {
	if path, found := jsontext.UnpairedSurrogate(jsontext.TrimByteOrderMark(text)); found && (len(path) < 2 || path[0] != "payload") {
		_, message := jsontext.FieldError(path)
		return message
	}
	return ""
}

// sessionContext returns the context that Options.Init returned, or nil before
// connection_init.
func (s *socket) sessionContext() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// handleInit handles connection_init. It returns false if it closed the socket.
func (s *socket) handleInit(payload map[string]any) bool {
	if s.sessionContext() != nil {
		s.close(closeSecondInit, "Too many initialisation requests")
		return false
	}
	o := &s.transports.options
	session, err := o.Init(s.ctx, payload)
	if err != nil {
		presented := o.PresentError(s.ctx, err)
		if s.protocol.connectionError != nil {
			s.send(s.ctx, outgoingMessage{text: s.protocol.connectionError(presented)})
		}
		if models.CodeOf(err) == models.Internal {
			s.close(closeInternal, presented.Message)
			return false
		}
		s.close(closeForbidden, "Forbidden")
		return false
	}
	if err := s.transports.setKey(s.connection, o.Key(session)); err != nil {
		s.close(closeCodeFor(err), err.Error())
		return false
	}
	s.mu.Lock()
	s.session = session
	s.mu.Unlock()
	for _, frame := range s.protocol.ackMessages {
		s.send(s.ctx, outgoingMessage{text: []byte(frame)})
	}
	return true
}

// handleSubscribe starts an operation. It returns false if it closed the socket.
func (s *socket) handleSubscribe(msg *clientMessage) bool {
	if s.sessionContext() == nil {
		s.close(closeUnauthorized, "Unauthorized")
		return false
	}
	if msg.ID == nil || *msg.ID == "" || len(msg.Payload) == 0 {
		s.close(closeBadMessage, "An operation needs an id and a payload")
		return false
	}
	params, reqErr := readJSONParams(msg.Payload)
	if reqErr != nil && reqErr.field != "" { // the request is at fault, not the client's program
		s.send(s.ctx, outgoingMessage{text: s.protocol.errorMessage(*msg.ID, errorList(reqErr))})
		return true
	}
	if reqErr != nil {
		s.close(closeBadMessage, reqErr.message)
		return false
	}
	s.startOperation(*msg.ID, params)
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

// endMessage returns the last message of an operation: errors, or complete.
func (p *protocol) endMessage(id string, errs gqlerror.List) []byte {
	if len(errs) > 0 {
		return p.errorMessage(id, errs)
	}
	return encodeMessage(id, p.completeType, nil)
}

// dataPrefix returns the bytes of a data message before its payload.
func (p *protocol) dataPrefix(id string) []byte {
	return bytes.TrimSuffix(encodeMessage(id, p.dataType, func(*bytes.Buffer) {}), dataSuffix)
}

// encodeMessage encodes a message. payload writes its payload; nil leaves it out.
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
