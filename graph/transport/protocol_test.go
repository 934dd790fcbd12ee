package transport_test

import (
	"testing"
	"time"

	"agentmarket.space/server/graph/transport"
)

// TestLegacyProtocol tests the protocol of subscriptions-transport-ws.
func TestLegacyProtocol(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.PingInterval = 50 * time.Millisecond })

	t.Run("session", func(t *testing.T) {
		t.Parallel()
		client := server.dial(t, subscriptionsTransportWS)
		client.send(`{"type":"connection_init","payload":{}}`)
		client.expect(ackMessage, `{"type":"ka"}`)
		client.send(`{"id":"1","type":"start","payload":{"query":"subscription { numbers(count: 1) }"}}`)
		client.expect(`{"id":"1","type":"data","payload":{"data":{"numbers":0}}}`, `{"id":"1","type":"complete"}`)
		client.send(`{"id":"2","type":"start","payload":{"query":"{ nothing }"}}`)
		client.expect(`{"id":"2","type":"error","payload":{"message":"Cannot query field \"nothing\" on type \"Query\".",` +
			`"locations":[{"line":1,"column":3}],"extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}}`)
		client.send(`{"id":"3","type":"start","payload":{"query":"subscription { silence }"}}`, `{"id":"3","type":"stop"}`)
		client.expect(`{"type":"ka"}`, `{"type":"ka"}`)
		client.send(`{"type":"connection_terminate"}`)
		client.expectClose(1000)
	})

	t.Run("rejected key gets connection_error before the close", func(t *testing.T) {
		t.Parallel()
		client := server.dial(t, subscriptionsTransportWS)
		client.send(`{"type":"connection_init","payload":{"apiKey":"bad"}}`)
		client.expect(`{"type":"connection_error","payload":{"message":"unknown API key"}}`)
		client.expectClose(4403)
	})

	t.Run("ping is not part of the protocol", func(t *testing.T) {
		t.Parallel()
		client := server.dial(t, subscriptionsTransportWS)
		client.send(`{"type":"ping"}`)
		client.expectClose(4400)
	})
}
