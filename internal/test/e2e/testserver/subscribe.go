package testserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// SubscribeWallet opens a WebSocket with the given subprotocol and subscribes to
// walletChanged. The API key is sent in a header or in the connection_init message.
// SubscribeWallet returns after the first event, which is the starting credits.
func (s *Server) SubscribeWallet(protocol, key string, inHeader bool) *websocket.Conn {
	s.tb.Helper()
	header, payload := http.Header{}, map[string]string{"X-API-Key": key}
	if inHeader {
		header.Set("X-API-Key", key)
		payload = nil
	}
	dialer := websocket.Dialer{Subprotocols: []string{protocol}}
	conn, response, err := dialer.DialContext(s.tb.Context(), strings.Replace(s.URL, "http", "ws", 1)+"/graphql", header)
	if err != nil {
		s.tb.Fatal(err)
	}
	_ = response.Body.Close() // the connection is the body
	s.tb.Cleanup(func() { _ = conn.Close() })
	subscribe := "subscribe"
	if protocol == "graphql-ws" {
		subscribe = "start"
	}
	for _, message := range []map[string]any{
		{"type": "connection_init", "payload": payload},
		{"type": subscribe, "id": "1", "payload": map[string]string{"query": `subscription { walletChanged(after: "0") { cursor } }`}},
	} {
		text, err := json.Marshal(message)
		if err != nil {
			s.tb.Fatal(err)
		}
		if err := conn.WriteMessage(websocket.TextMessage, text); err != nil {
			s.tb.Fatal(err)
		}
	}
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			s.tb.Fatal(err)
		}
		if strings.Contains(string(text), "walletChanged") { // the starting credits
			return conn
		}
	}
}

// WaitClosed waits until a WebSocket is closed, for at most timeout, and returns the error.
func WaitClosed(conn *websocket.Conn, timeout time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			return err
		}
	}
}

// DialWebSocket opens a GraphQL WebSocket and waits for connection_ack.
func (s *Server) DialWebSocket(ctx context.Context) (*websocket.Conn, error) {
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
	conn, response, err := dialer.DialContext(ctx, strings.Replace(s.URL, "http", "ws", 1)+"/graphql", nil)
	if err != nil {
		return nil, err
	}
	_ = response.Body.Close() // the connection is the body
	err = conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"connection_init"}`))
	if err == nil {
		var text []byte
		if _, text, err = conn.ReadMessage(); err == nil && !strings.Contains(string(text), "connection_ack") {
			err = fmt.Errorf("want connection_ack, got %s", text)
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
