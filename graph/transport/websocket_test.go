package transport_test

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
)

const subscribeSilence = `{"id":"1","type":"subscribe","payload":{"query":"subscription { silence }"}}`

// TestCloseCodes holds the codes of graphql-transport-ws: for each thing that a
// client may not do, the one that it is told.
func TestCloseCodes(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.ReadLimit = 4096 })
	for name, row := range map[string]struct {
		says []string
		code int
	}{
		"a message that is no JSON":            {[]string{`{`}, 4400},
		"a message that is an array":           {[]string{`[]`}, 4400},
		"two messages in one":                  {[]string{`{"type":"ping"}{"type":"ping"}`}, 4400},
		"a message without a type":             {[]string{`{}`}, 4400},
		"an unknown type":                      {[]string{`{"type":"dance"}`}, 4400},
		"a type of the server's":               {[]string{initMessage, `{"type":"next","id":"1"}`}, 4400},
		"the older protocol's start":           {[]string{initMessage, `{"type":"start","id":"1","payload":{"query":"{ hello }"}}`}, 4400},
		"an id that is no string":              {[]string{initMessage, `{"type":"subscribe","id":1,"payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe without an id":              {[]string{initMessage, `{"type":"subscribe","payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe with an empty id":           {[]string{initMessage, `{"type":"subscribe","id":"","payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe without a payload":          {[]string{initMessage, `{"type":"subscribe","id":"1"}`}, 4400},
		"subscribe with a payload of null":     {[]string{initMessage, `{"type":"subscribe","id":"1","payload":null}`}, 4400},
		"subscribe with an array":              {[]string{initMessage, `{"type":"subscribe","id":"1","payload":[]}`}, 4400},
		"complete without an id":               {[]string{initMessage, `{"type":"complete"}`}, 4400},
		"an init payload that is no object":    {[]string{`{"type":"connection_init","payload":"key"}`}, 4400},
		"subscribe before init":                {[]string{subscribeSilence}, 4401},
		"a key that is not known":              {[]string{`{"type":"connection_init","payload":{"apiKey":"bad"}}`}, 4403},
		"an id that is taken":                  {[]string{initMessage, subscribeSilence, subscribeSilence}, 4409},
		"a second init":                        {[]string{initMessage, initMessage}, 4429},
		"a fault while the key is looked up":   {[]string{`{"type":"connection_init","payload":{"apiKey":"fault"}}`}, 1011},
		"a panic while the key is looked up":   {[]string{`{"type":"connection_init","payload":{"apiKey":"panic"}}`}, 1011},
		"a message that is too long":           {[]string{strings.Repeat(" ", 5000)}, 1009},
		"a message that is not UTF-8":          {[]string{"{\"type\":\"ping\",\"payload\":{\"a\":\"\xff\"}}"}, 1007},
		"the same in an operation":             {[]string{initMessage, "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"\xff\"}}"}, 1007},
		"a taken id of odd letters, cut short": {subscribeWithLongID(initMessage, 2), 4409},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := d.dial(t, modern)
			p.send(row.says...)
			if reason := p.expectClose(row.code); strings.Contains(reason, "hunter2") {
				t.Errorf("the reason tells a secret: %s", reason)
			}
		})
	}
	t.Run("a message that is not text", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t, modern)
		testutil.Must(t, p.WriteMessage(websocket.BinaryMessage, []byte(initMessage)))
		p.expectClose(1003)
	})
}

// subscribeWithLongID begins operations whose long id would be cut in the middle of a letter
// when it is repeated in the reason of a close.
func subscribeWithLongID(first string, times int) []string {
	says := []string{first}
	for range times {
		says = append(says, `{"id":"`+strings.Repeat("é€", 40)+`","type":"subscribe","payload":{"query":"subscription { silence }"}}`)
	}
	return says
}

func TestInitTimeout(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.InitTimeout = 20 * time.Millisecond })
	d.dial(t, modern).expectClose(4408)
	testutil.Eventually(t, "the socket is gone", func() bool { return d.transports.Connections() == 0 })
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	for name, row := range map[string]struct {
		protocols []string
		origin    string
		status    int
	}{
		"the protocol of today":       {[]string{modern}, "", http.StatusSwitchingProtocols},
		"the one before it":           {[]string{legacy}, "", http.StatusSwitchingProtocols},
		"none named":                  {nil, "", http.StatusSwitchingProtocols},
		"one known among others":      {[]string{"soap", modern}, "", http.StatusSwitchingProtocols},
		"none known":                  {[]string{"soap"}, "", http.StatusBadRequest},
		"a page of a stranger's host": {[]string{modern}, "https://evil.example", http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, response, err := d.tryDial(t.Context(), http.Header{"Origin": {row.origin}}, row.protocols...)
			if response == nil || response.StatusCode != row.status {
				t.Fatalf("answer %v (%v), want status %d", response, err, row.status)
			}
			if err == nil {
				testutil.Must(t, conn.Close())
			}
			testutil.Must(t, response.Body.Close())
		})
	}
}

func TestOperations(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.MaxOperations = 2 })

	t.Run("a subscription sends what happens, then complete", func(t *testing.T) {
		t.Parallel()
		p := d.connect(t)
		p.subscribe("a", "subscription { numbers(count: 2) }")
		p.expect(`{"id":"a","type":"next","payload":{"data":{"numbers":0}}}`,
			`{"id":"a","type":"next","payload":{"data":{"numbers":1}}}`, `{"id":"a","type":"complete"}`)
	})

	t.Run("a query runs on the socket too, and its id may be used again", func(t *testing.T) {
		t.Parallel()
		p := d.connect(t)
		for range 3 {
			p.subscribe("a", "{ hello }")
			p.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
		}
	})

	t.Run("an invalid operation gets an error and nothing more", func(t *testing.T) {
		t.Parallel()
		p := d.connect(t)
		p.subscribe("a", "{ nothing }")
		p.expect(`{"id":"a","type":"error","payload":[{"message":"Cannot query field \"nothing\" on type \"Query\".",` +
			`"locations":[{"line":1,"column":3}],"extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}`)
		p.expectNoMessage()
	})

	t.Run("one that is refused does as well", func(t *testing.T) {
		t.Parallel()
		p := d.connect(t)
		p.subscribe("a", "subscription { refused }")
		p.expect(`{"id":"a","type":"error","payload":[{"message":"not for you","extensions":{"code":"FORBIDDEN"}}]}`)
		p.expectNoMessage()
	})

	t.Run("a panic ends its own operation only", func(t *testing.T) {
		t.Parallel()
		p := d.connect(t)
		p.subscribe("other", "subscription { silence }")
		p.subscribe("a", "subscription { panic }")
		p.expect(`{"id":"a","type":"next","payload":{"data":{"panic":0}}}`,
			`{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
		p.subscribe("b", "{ panic }")
		p.expect(`{"id":"b","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
		p.expectNoMessage()
	})

	t.Run("complete is not answered and frees the id", func(t *testing.T) {
		t.Parallel()
		p := d.connect(t)
		for range 5 {
			p.send(subscribeSilence, `{"id":"1","type":"complete"}`)
		}
		p.send(`{"id":"never begun","type":"complete"}`)
		p.expectNoMessage()
	})

	t.Run("the answer of one that the client has ended is not said", func(t *testing.T) {
		t.Parallel()
		d := startServer(t, nil)
		p := d.connect(t)
		p.subscribe("a", "mutation { stuck }")
		p.send(`{"id":"a","type":"complete"}`)
		p.subscribe("a", "subscription { silence }")
		p.expectNoMessage()
		close(d.schema.unblock)
		for range 100 { // each gives it time
			p.expectNoMessage()
		}
	})

	t.Run("one too many is refused, the others go on", func(t *testing.T) {
		t.Parallel()
		p := d.connect(t)
		p.subscribe("a", "subscription { silence }")
		p.subscribe("b", "subscription { silence }")
		p.subscribe("c", "subscription { silence }")
		p.expect(`{"id":"c","type":"error","payload":[{"message":"too many operations on this socket",` +
			`"extensions":{"code":"TOO_MANY_OPERATIONS"}}]}`)
		p.send(`{"id":"a","type":"complete"}`)
		p.subscribe("c", "{ hello }")
		p.expect(`{"id":"c","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"c","type":"complete"}`)
	})
}

// expectNoMessage wants nothing to have been said before the answer to a ping.
func (p *wsClient) expectNoMessage() {
	p.t.Helper()
	p.send(`{"type":"ping"}`)
	p.expect(`{"type":"pong","payload":null}`)
}

func TestPing(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	p := d.dial(t, modern)
	p.send(`{"type":"ping","payload":{"before":"init"}}`, `{"type":"pong"}`)
	p.expect(`{"type":"pong","payload":{"before":"init"}}`)
	p.send(initMessage)
	p.expect(ackMessage)
	p.expectNoMessage()
}

func TestBeforeOperation(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) {
		o.BeforeOperation = func(context.Context) error { return context.DeadlineExceeded }
	})
	p := d.connect(t)
	p.subscribe("a", "{ hello }")
	p.expect(`{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
}

// TestLegacyProtocol speaks as subscriptions-transport-ws does.
func TestLegacyProtocol(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.PingInterval = 50 * time.Millisecond })

	t.Run("a session", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t, legacy)
		p.send(`{"type":"connection_init","payload":{}}`)
		p.expect(ackMessage, `{"type":"ka"}`)
		p.send(`{"id":"1","type":"start","payload":{"query":"subscription { numbers(count: 1) }"}}`)
		p.expect(`{"id":"1","type":"data","payload":{"data":{"numbers":0}}}`, `{"id":"1","type":"complete"}`)
		p.send(`{"id":"2","type":"start","payload":{"query":"{ nothing }"}}`)
		p.expect(`{"id":"2","type":"error","payload":{"message":"Cannot query field \"nothing\" on type \"Query\".",` +
			`"locations":[{"line":1,"column":3}],"extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}}`)
		p.send(`{"id":"3","type":"start","payload":{"query":"subscription { silence }"}}`, `{"id":"3","type":"stop"}`)
		p.expect(`{"type":"ka"}`, `{"type":"ka"}`)
		p.send(`{"type":"connection_terminate"}`)
		p.expectClose(1000)
	})

	t.Run("a refused key is told before the close", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t, legacy)
		p.send(`{"type":"connection_init","payload":{"apiKey":"bad"}}`)
		p.expect(`{"type":"connection_error","payload":{"message":"the API key is not known"}}`)
		p.expectClose(4403)
	})

	t.Run("ping is no word of it", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t, legacy)
		p.send(`{"type":"ping"}`)
		p.expectClose(4400)
	})
}

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*transport.Options){
		"in all":           func(o *transport.Options) { o.MaxConnections = 1 },
		"from one address": func(o *transport.Options) { o.MaxPerAddress = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startServer(t, limit)
			first := d.connect(t)
			second := d.dial(t, modern)
			second.send(initMessage) // on its way while the socket is closed
			second.expectClose(1013)
			stream := d.post(t, "subscription { silence }", "Accept", "text/event-stream")
			if stream.status != http.StatusServiceUnavailable || stream.header.Get("Retry-After") == "" {
				t.Errorf("an event stream beside it was answered %+v", stream)
			}
			testutil.Must(t, first.Close())
			testutil.Eventually(t, "there is room again", func() bool { return d.transports.Connections() == 0 })
			d.connect(t)
		})
	}
	t.Run("with one key", func(t *testing.T) {
		t.Parallel()
		d := startServer(t, func(o *transport.Options) { o.MaxPerKey = 1 })
		withKey := `{"type":"connection_init","payload":{"apiKey":"k"}}`
		first := d.dial(t, modern)
		first.send(withKey)
		first.expect(ackMessage)
		second := d.dial(t, modern)
		second.send(withKey)
		second.expectClose(1013)
		d.connect(t)
	})
}

// TestCloseKey: a key that is revoked takes its own sockets along, told with the
// code that keeps clients from coming back, and lets nobody in who read it before.
func TestCloseKey(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	revoked, other := d.dial(t, modern), d.connect(t)
	revoked.send(`{"type":"connection_init","payload":{"apiKey":"k"}}`, subscribeSilence)
	revoked.expect(ackMessage)
	d.transports.CloseKey("k")
	revoked.expectClose(4401)
	other.expectNoMessage()

	late := d.dial(t, modern)
	late.send(`{"type":"connection_init","payload":{"apiKey":"k"}}`)
	late.expectClose(4401)
}

// TestCloseKey_doesNotBlock: the store's writer calls it. A socket whose peer has
// stopped reading must not hold it up.
func TestCloseKey_doesNotBlock(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.WriteTimeout = time.Minute })
	for range 5 {
		p := d.dial(t, modern)
		p.send(`{"type":"connection_init","payload":{"apiKey":"k"}}`)
		p.expect(ackMessage)
		p.subscribe("a", "subscription { flood }")
		p.waitUntilWriteBlocks(d)
	}
	began := time.Now()
	d.transports.CloseKey("k")
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	testutil.Eventually(t, "the sockets are gone", func() bool { return d.transports.Connections() == 0 })
}

// waitUntilWriteBlocks waits until so much was sent to the peer that the server's writes
// are held up: what is acknowledged no longer grows.
func (p *wsClient) waitUntilWriteBlocks(d *testServer) {
	p.t.Helper()
	other := d.connect(p.t)
	for range 100 { // each round trip gives the flood time
		other.expectNoMessage()
	}
	testutil.Must(p.t, other.Close())
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	p := d.connect(t)
	p.send(subscribeSilence)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.transports.Shutdown(t.Context())
	}()
	p.expectClose(1001)
	<-ended
	if n := d.transports.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	d.dial(t, modern).expectClose(1001)
	if stream := d.post(t, "subscription { silence }", "Accept", "text/event-stream"); stream.status != http.StatusServiceUnavailable {
		t.Errorf("an event stream was answered %+v", stream)
	}
}

// TestShutdown_timeout: an operation that does not end is left.
func TestShutdown_timeout(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	d.connect(t).subscribe("a", "mutation { stuck }")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.transports.Shutdown(ctx)
	if n := d.transports.Connections(); n != 1 {
		t.Errorf("%d connections are counted, want the stuck one", n)
	}
	close(d.schema.unblock)
	d.transports.Shutdown(t.Context())
	if n := d.transports.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestSlowReader: a client that stops reading is cut off after the write time,
// whether or not it showed life before, and nobody else notices.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	other := d.connect(t)
	slow := d.connect(t)
	testutil.Must(t, slow.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second)))
	slow.subscribe("a", "subscription { flood }")
	testutil.Eventually(t, "the slow one is gone", func() bool {
		other.expectNoMessage()
		return d.transports.Connections() == 1
	})
	if n := d.transports.ConnectionsCutOff(); n != 1 {
		t.Errorf("%d are counted as cut off", n)
	}
	other.subscribe("a", "{ hello }")
	other.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`)
}

// TestDeadPeer: one that answers no ping is let go.
func TestDeadPeer(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	dead, living := d.connect(t), d.connect(t)
	dead.SetPingHandler(func(string) error { return nil })
	go func() {
		for {
			if _, _, err := living.ReadMessage(); err != nil {
				return
			}
		}
	}()
	dead.expectClose(1001)
	testutil.Eventually(t, "only the living is left", func() bool { return d.transports.Connections() == 1 })
}

// TestNoGoroutineLeaks is not parallel: it counts the goroutines of the
// process. Clients leave in every way there is.
func TestNoGoroutineLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	d := startServer(t, nil)
	for range 10 {
		polite := d.connect(t)
		polite.send(subscribeSilence)
		testutil.Must(t, polite.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)))
		polite.expectClose(1000)

		rude := d.connect(t)
		rude.send(subscribeSilence)
		testutil.Must(t, rude.NetConn().Close())

		wrong := d.connect(t)
		wrong.send(subscribeSilence, subscribeSilence)
		wrong.expectClose(4409)

		d.dial(t, modern).send(`{"type":"connection_init","payload":7}`)
	}
	testutil.Eventually(t, "every socket is gone", func() bool { return d.transports.Connections() == 0 })
	d.Close()
	testutil.Eventually(t, "every goroutine is", func() bool { return runtime.NumGoroutine() <= before })
}
