package transport_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
)

// TestCloseCodes tests the close code for each violation of graphql-transport-ws.
func TestCloseCodes(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.ReadLimit = 4096 })
	for name, tt := range map[string]struct {
		messages []string
		code     int
	}{
		"invalid JSON":                    {[]string{`{`}, 4400},
		"JSON array":                      {[]string{`[]`}, 4400},
		"two JSON values":                 {[]string{`{"type":"ping"}{"type":"ping"}`}, 4400},
		"no type":                         {[]string{`{}`}, 4400},
		"unknown type":                    {[]string{`{"type":"dance"}`}, 4400},
		"server message type":             {[]string{initMessage, `{"type":"next","id":"1"}`}, 4400},
		"start of the legacy protocol":    {[]string{initMessage, `{"type":"start","id":"1","payload":{"query":"{ hello }"}}`}, 4400},
		"id is not a string":              {[]string{initMessage, `{"type":"subscribe","id":1,"payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe without an id":         {[]string{initMessage, `{"type":"subscribe","payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe with an empty id":      {[]string{initMessage, `{"type":"subscribe","id":"","payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe without a payload":     {[]string{initMessage, `{"type":"subscribe","id":"1"}`}, 4400},
		"subscribe with a null payload":   {[]string{initMessage, `{"type":"subscribe","id":"1","payload":null}`}, 4400},
		"subscribe with an array payload": {[]string{initMessage, `{"type":"subscribe","id":"1","payload":[]}`}, 4400},
		"complete without an id":          {[]string{initMessage, `{"type":"complete"}`}, 4400},
		"init payload is not an object":   {[]string{`{"type":"connection_init","payload":"key"}`}, 4400},
		"subscribe before init":           {[]string{subscribeSilence}, 4401},
		"half a pair in an id":            {[]string{initMessage, `{"type":"subscribe","id":"\ud83d","payload":{"query":"{ hello }"}}`}, 4400},
		"half a pair in a stopped id":     {[]string{initMessage, `{"type":"complete","id":"\ud83d"}`}, 4400},
		"half a pair in the init payload": {[]string{`{"type":"connection_init","payload":{"apiKey":"\ude00"}}`}, 4400},
		"unknown key":                     {[]string{`{"type":"connection_init","payload":{"apiKey":"bad"}}`}, 4403},
		"duplicate id":                    {[]string{initMessage, subscribeSilence, subscribeSilence}, 4409},
		"second init":                     {[]string{initMessage, initMessage}, 4429},
		"internal error during init":      {[]string{`{"type":"connection_init","payload":{"apiKey":"fault"}}`}, 1011},
		"panic during init":               {[]string{`{"type":"connection_init","payload":{"apiKey":"panic"}}`}, 1011},
		"message too long":                {[]string{strings.Repeat(" ", 5000)}, 1009},
		"message is not UTF-8":            {[]string{"{\"type\":\"ping\",\"payload\":{\"a\":\"\xff\"}}"}, 1007},
		"operation is not UTF-8":          {[]string{initMessage, "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"\xff\"}}"}, 1007},
		"close reason truncated inside a multi-byte character": {subscribeWithLongID(initMessage, 2), 4409},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := server.dial(t, graphqlTransportWS)
			client.send(tt.messages...)
			if reason := client.expectClose(tt.code); strings.Contains(reason, "hunter2") {
				t.Errorf("the reason contains a secret: %s", reason)
			}
		})
	}
	t.Run("binary message", func(t *testing.T) {
		t.Parallel()
		client := server.dial(t, graphqlTransportWS)
		testutil.Must(t, client.WriteMessage(websocket.BinaryMessage, []byte(initMessage)))
		client.expectClose(1003)
	})
}

// subscribeWithLongID starts operations whose id is longer than a close reason may be,
// and is truncated inside a multi-byte character.
func subscribeWithLongID(first string, times int) []string {
	messages := []string{first}
	for range times {
		messages = append(messages, `{"id":"`+strings.Repeat("é€", 40)+`","type":"subscribe","payload":{"query":"subscription { silence }"}}`)
	}
	return messages
}

func TestInitTimeout(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.InitTimeout = 20 * time.Millisecond })
	server.dial(t, graphqlTransportWS).expectClose(4408)
	testutil.Eventually(t, "the socket to close", func() bool { return server.transports.Connections() == 0 })
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	for name, tt := range map[string]struct {
		protocols []string
		origin    string
		status    int
	}{
		"graphql-transport-ws":      {[]string{graphqlTransportWS}, "", http.StatusSwitchingProtocols},
		"graphql-ws":                {[]string{subscriptionsTransportWS}, "", http.StatusSwitchingProtocols},
		"no subprotocol":            {nil, "", http.StatusSwitchingProtocols},
		"one supported subprotocol": {[]string{"soap", graphqlTransportWS}, "", http.StatusSwitchingProtocols},
		"unsupported subprotocol":   {[]string{"soap"}, "", http.StatusBadRequest},
		"origin not allowed":        {[]string{graphqlTransportWS}, "https://evil.example", http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, response, err := server.tryDial(t.Context(), http.Header{"Origin": {tt.origin}}, tt.protocols...)
			if response == nil || response.StatusCode != tt.status {
				t.Fatalf("got %v (%v), want status %d", response, err, tt.status)
			}
			if err == nil {
				testutil.Must(t, conn.Close())
			}
			testutil.Must(t, response.Body.Close())
		})
	}
}
