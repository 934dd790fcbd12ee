package testserver

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// SubscribeWallet opens a socket of a protocol with an API key, sent in its init message or
// with the request, and subscribes to what the agent's wallet does. It returns once
// the subscription has brought what the wallet began with.
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
		if strings.Contains(string(text), "walletChanged") { // the grant of the registration
			return conn
		}
	}
}

// WaitClosed waits until a socket ends, so long at most, and returns how.
func WaitClosed(conn *websocket.Conn, within time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			return err
		}
	}
}
