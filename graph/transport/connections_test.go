package transport_test

import (
	"context"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
)

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*transport.Options){
		"total":       func(o *transport.Options) { o.MaxConnections = 1 },
		"per address": func(o *transport.Options) { o.MaxPerAddress = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startServer(t, limit)
			first := server.connect(t)
			second := server.dial(t, graphqlTransportWS)
			second.send(initMessage) // may arrive while the socket is being closed
			second.expectClose(1013)
			stream := server.post(t, "subscription { silence }", "Accept", "text/event-stream")
			if stream.status != http.StatusServiceUnavailable || stream.header.Get("Retry-After") == "" {
				t.Errorf("second event stream: got %+v", stream)
			}
			testutil.Must(t, first.Close())
			testutil.Eventually(t, "the first connection to close", func() bool { return server.transports.Connections() == 0 })
			server.connect(t)
		})
	}
	t.Run("per key", func(t *testing.T) {
		t.Parallel()
		server := startServer(t, func(o *transport.Options) { o.MaxPerKey = 1 })
		withKey := `{"type":"connection_init","payload":{"apiKey":"k"}}`
		first := server.dial(t, graphqlTransportWS)
		first.send(withKey)
		first.expect(ackMessage)
		second := server.dial(t, graphqlTransportWS)
		second.send(withKey)
		second.expectClose(1013)
		server.connect(t)
	})
}

// TestCloseKey checks that the sockets of a revoked key are closed with 4401, and that
// a later connection_init with the key is rejected.
func TestCloseKey(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	revoked, other := server.dial(t, graphqlTransportWS), server.connect(t)
	revoked.send(`{"type":"connection_init","payload":{"apiKey":"k"}}`, subscribeSilence)
	revoked.expect(ackMessage)
	server.transports.CloseKey("k")
	revoked.expectClose(4401)
	other.expectNoMessage()

	late := server.dial(t, graphqlTransportWS)
	late.send(`{"type":"connection_init","payload":{"apiKey":"k"}}`)
	late.expectClose(4401)
}

// TestCloseKey_doesNotBlock checks that CloseKey does not wait for peers that do not
// read: the database writer calls it.
func TestCloseKey_doesNotBlock(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.WriteTimeout = time.Minute })
	for range 5 {
		client := server.dial(t, graphqlTransportWS)
		client.send(`{"type":"connection_init","payload":{"apiKey":"k"}}`)
		client.expect(ackMessage)
		client.subscribe("a", "subscription { flood }")
		client.waitUntilWriteBlocks(server)
	}
	start := time.Now()
	server.transports.CloseKey("k")
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("CloseKey took %s", took)
	}
	testutil.Eventually(t, "the sockets to close", func() bool { return server.transports.Connections() == 0 })
}

// waitUntilWriteBlocks waits until the server has sent enough for its writes to block.
func (client *wsClient) waitUntilWriteBlocks(server *testServer) {
	client.t.Helper()
	other := server.connect(client.t)
	for range 100 { // each round trip gives the server time to write
		other.expectNoMessage()
	}
	testutil.Must(client.t, other.Close())
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	client := server.connect(t)
	client.send(subscribeSilence)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.transports.Shutdown(t.Context())
	}()
	client.expectClose(1001)
	<-done
	if n := server.transports.Connections(); n != 0 {
		t.Errorf("%d open connections", n)
	}
	server.dial(t, graphqlTransportWS).expectClose(1001)
	if stream := server.post(t, "subscription { silence }", "Accept", "text/event-stream"); stream.status != http.StatusServiceUnavailable {
		t.Errorf("event stream: got %+v", stream)
	}
}

// TestShutdown_timeout checks that Shutdown returns when its context is done, although
// an operation still runs.
func TestShutdown_timeout(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	server.connect(t).subscribe("a", "mutation { stuck }")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	server.transports.Shutdown(ctx)
	if n := server.transports.Connections(); n != 1 {
		t.Errorf("got %d open connections, want 1", n)
	}
	close(server.schema.unblock)
	server.transports.Shutdown(t.Context())
	if n := server.transports.Connections(); n != 0 {
		t.Errorf("%d open connections", n)
	}
}

// TestSlowReader checks that a client that stops reading is disconnected after the
// write timeout, even if it has sent a pong, and that other clients are not affected.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	other := server.connect(t)
	slow := server.connect(t)
	testutil.Must(t, slow.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second)))
	slow.subscribe("a", "subscription { flood }")
	testutil.Eventually(t, "the slow client to be disconnected", func() bool {
		other.expectNoMessage()
		return server.transports.Connections() == 1
	})
	if n := server.transports.ConnectionsCutOff(); n != 1 {
		t.Errorf("got %d connections cut off, want 1", n)
	}
	other.subscribe("a", "{ hello }")
	other.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`)
}

// TestDeadPeer checks that a peer that sends no pong is disconnected.
func TestDeadPeer(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	dead, alive := server.connect(t), server.connect(t)
	dead.SetPingHandler(func(string) error { return nil })
	go func() {
		for {
			if _, _, err := alive.ReadMessage(); err != nil {
				return
			}
		}
	}()
	dead.expectClose(1001)
	testutil.Eventually(t, "the dead peer to be disconnected", func() bool { return server.transports.Connections() == 1 })
}

// TestNoGoroutineLeaks closes connections in every way. It counts the goroutines of
// the process and therefore is not parallel.
func TestNoGoroutineLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	server := startServer(t, nil)
	for range 10 {
		closing := server.connect(t)
		closing.send(subscribeSilence)
		testutil.Must(t, closing.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)))
		closing.expectClose(1000)

		dropped := server.connect(t)
		dropped.send(subscribeSilence)
		testutil.Must(t, dropped.NetConn().Close())

		invalid := server.connect(t)
		invalid.send(subscribeSilence, subscribeSilence)
		invalid.expectClose(4409)

		server.dial(t, graphqlTransportWS).send(`{"type":"connection_init","payload":7}`)
	}
	testutil.Eventually(t, "all sockets to close", func() bool { return server.transports.Connections() == 0 })
	server.Close()
	testutil.Eventually(t, "all goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}
