package transport_test

import (
	"context"
	"testing"
	"time"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
)

// connectWithKey opens a socket with an API key.
func (server *testServer) connectWithKey(t *testing.T, protocol, key string) *wsClient {
	t.Helper()
	client := server.dial(t, protocol)
	client.send(`{"type":"connection_init","payload":{"apiKey":"` + key + `"}}`)
	client.expect(ackMessage)
	if protocol == subscriptionsTransportWS {
		client.expect(`{"type":"ka"}`)
	}
	return client
}

// TestCloseKey_answersMutation checks that a mutation that ends the key of its socket
// or stream is answered before the close, that the subscriptions next to it get nothing
// more, and that the other sockets of the key are closed at once.
func TestCloseKey_answersMutation(t *testing.T) {
	t.Parallel()
	for protocol, words := range map[string]struct{ start, data string }{
		graphqlTransportWS:       {"subscribe", "next"},
		subscriptionsTransportWS: {"start", "data"},
	} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			server := startServer(t, nil)
			client, other := server.connectWithKey(t, protocol, "k"), server.connectWithKey(t, protocol, "k")
			stream := server.openSilentStream(t.Context(), t, "k")
			client.send(`{"id":"a","type":"` + words.start + `","payload":{"query":"subscription { scripted }"}}`)
			source := <-server.schema.sources
			server.schema.onChange = func() {
				server.transports.CloseKey("k")
				source.push("1") // an event after the end of the key
				other.expectClose(4401)
				stream.readAll()
			}
			client.send(`{"id":"b","type":"` + words.start + `","payload":{"query":"mutation { change }"}}`)
			client.expect(`{"id":"b","type":"`+words.data+`","payload":{"data":{"change":"world"}}}`, `{"id":"b","type":"complete"}`)
			client.expectNothingBeforeClose(4401)
			source.expectClosed(t)
		})
	}
	t.Run("event stream", func(t *testing.T) {
		t.Parallel()
		server := startServer(t, nil)
		other := server.connectWithKey(t, graphqlTransportWS, "k")
		server.schema.onChange = func() {
			server.transports.CloseKey("k")
			other.expectClose(4401)
		}
		got := server.openStream(t.Context(), t, "k", "mutation { change }").readAll()
		if want := nextEvent(`{"data":{"change":"world"}}`) + completeEvent; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// expectNothingBeforeClose checks that the next frame closes the socket.
func (client *wsClient) expectNothingBeforeClose(code int) {
	client.t.Helper()
	_, text, err := client.ReadMessage()
	if err == nil {
		client.t.Fatalf("got %s, want the close", text)
	}
	client.expectClose(code) // the library returns the same error again
}

// TestCloseKey_answerTimeout checks that neither a mutation that does not end nor a client
// that does not read keeps the connection of a revoked key open.
func TestCloseKey_answerTimeout(t *testing.T) {
	t.Parallel()
	shortAnswers := func(o *transport.Options) { o.AnswerTimeout = 50 * time.Millisecond }
	t.Run("stuck mutation", func(t *testing.T) {
		t.Parallel()
		server := startServer(t, shortAnswers)
		client := server.connectWithKey(t, graphqlTransportWS, "k")
		client.subscribe("a", "mutation { stuck }")
		testutil.Receive(t, "the mutation", server.schema.started)
		server.transports.CloseKey("k")
		client.expectNothingBeforeClose(4401)
		close(server.schema.unblock)
	})
	t.Run("stuck mutation on an event stream", func(t *testing.T) {
		t.Parallel()
		server := startServer(t, shortAnswers)
		stream := server.openStream(t.Context(), t, "k", "mutation { stuck }")
		stream.expectHeartbeats(1)
		testutil.Receive(t, "the mutation", server.schema.started)
		server.transports.CloseKey("k")
		close(server.schema.unblock)
		stream.readAll()
		testutil.Eventually(t, "the stream to close", func() bool { return server.transports.Connections() == 0 })
	})
	t.Run("client that does not read", func(t *testing.T) {
		t.Parallel()
		server := startServer(t, func(o *transport.Options) { o.AnswerTimeout, o.WriteTimeout = 50*time.Millisecond, time.Minute })
		client := server.connectWithKey(t, graphqlTransportWS, "k")
		client.subscribe("a", "subscription { flood }")
		client.waitUntilWriteBlocks(server)
		server.schema.onChange = func() { server.transports.CloseKey("k") }
		client.subscribe("b", "mutation { change }")
		testutil.Eventually(t, "the socket to close", func() bool { return server.transports.Connections() == 0 })
	})
}

// TestShutdown_answersMutation checks that running mutations are answered before the close,
// that new operations are ignored, and that a mutation stopped by its client does not keep
// the socket open.
func TestShutdown_answersMutation(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	client, stopped := server.connect(t), server.connect(t)
	client.subscribe("a", "mutation { stuck }")
	client.send(subscribeSilence)
	stopped.subscribe("a", "mutation { stuck }")
	stream := server.openStream(t.Context(), t, "", "mutation { stuck }")
	stream.expectHeartbeats(1)
	for range 3 {
		testutil.Receive(t, "a mutation", server.schema.started)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.transports.Shutdown(context.WithoutCancel(t.Context()))
	}()
	testutil.Eventually(t, "the shutdown to start", func() bool {
		return server.post(t, "subscription { silence }", "Accept", "text/event-stream").status == 503
	})
	client.expectNoMessage() // the socket is still open
	client.subscribe("c", "mutation { change }")
	client.expectNoMessage()
	stopped.send(`{"id":"a","type":"complete"}`)
	stopped.expectClose(1001)
	close(server.schema.unblock)
	client.expect(`{"id":"a","type":"next","payload":{"data":{"stuck":"world"}}}`, `{"id":"a","type":"complete"}`)
	client.expectNothingBeforeClose(1001)
	if got, want := stream.readAll(), nextEvent(`{"data":{"stuck":"world"}}`)+completeEvent; got != want {
		t.Errorf("stream ended with %q, want %q", got, want)
	}
	testutil.Receive(t, "the shutdown", done)
}
