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
)

const silence = `{"id":"1","type":"subscribe","payload":{"query":"subscription { silence }"}}`

// TestCloseCodes holds the codes of graphql-transport-ws: for each thing that a
// client may not do, the one that it is told.
func TestCloseCodes(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.ReadLimit = 4096 })
	for name, row := range map[string]struct {
		says []string
		code int
	}{
		"a message that is no JSON":            {[]string{`{`}, 4400},
		"a message that is an array":           {[]string{`[]`}, 4400},
		"two messages in one":                  {[]string{`{"type":"ping"}{"type":"ping"}`}, 4400},
		"a message without a type":             {[]string{`{}`}, 4400},
		"an unknown type":                      {[]string{`{"type":"dance"}`}, 4400},
		"a type of the server's":               {[]string{hello, `{"type":"next","id":"1"}`}, 4400},
		"the older protocol's start":           {[]string{hello, `{"type":"start","id":"1","payload":{"query":"{ hello }"}}`}, 4400},
		"an id that is no string":              {[]string{hello, `{"type":"subscribe","id":1,"payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe without an id":              {[]string{hello, `{"type":"subscribe","payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe with an empty id":           {[]string{hello, `{"type":"subscribe","id":"","payload":{"query":"{ hello }"}}`}, 4400},
		"subscribe without a payload":          {[]string{hello, `{"type":"subscribe","id":"1"}`}, 4400},
		"subscribe with a payload of null":     {[]string{hello, `{"type":"subscribe","id":"1","payload":null}`}, 4400},
		"subscribe with an array":              {[]string{hello, `{"type":"subscribe","id":"1","payload":[]}`}, 4400},
		"complete without an id":               {[]string{hello, `{"type":"complete"}`}, 4400},
		"an init payload that is no object":    {[]string{`{"type":"connection_init","payload":"key"}`}, 4400},
		"subscribe before init":                {[]string{silence}, 4401},
		"a key that is not known":              {[]string{`{"type":"connection_init","payload":{"apiKey":"bad"}}`}, 4403},
		"an id that is taken":                  {[]string{hello, silence, silence}, 4409},
		"a second init":                        {[]string{hello, hello}, 4429},
		"a fault while the key is looked up":   {[]string{`{"type":"connection_init","payload":{"apiKey":"fault"}}`}, 1011},
		"a panic while the key is looked up":   {[]string{`{"type":"connection_init","payload":{"apiKey":"panic"}}`}, 1011},
		"a message that is too long":           {[]string{strings.Repeat(" ", 5000)}, 1009},
		"a message that is not UTF-8":          {[]string{"{\"type\":\"ping\",\"payload\":{\"a\":\"\xff\"}}"}, 1007},
		"the same in an operation":             {[]string{hello, "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"\xff\"}}"}, 1007},
		"a taken id of odd letters, cut short": {odd(hello, 2), 4409},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := d.dial(t, modern)
			p.says(row.says...)
			if reason := p.isClosed(row.code); strings.Contains(reason, "hunter2") {
				t.Errorf("the reason tells a secret: %s", reason)
			}
		})
	}
	t.Run("a message that is not text", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t, modern)
		must(t, p.WriteMessage(websocket.BinaryMessage, []byte(hello)))
		p.isClosed(1003)
	})
}

// odd begins operations whose long id would be cut in the middle of a letter
// when it is repeated in the reason of a close.
func odd(first string, times int) []string {
	says := []string{first}
	for range times {
		says = append(says, `{"id":"`+strings.Repeat("é€", 40)+`","type":"subscribe","payload":{"query":"subscription { silence }"}}`)
	}
	return says
}

func TestSilentClientIsClosed(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.InitTimeout = 20 * time.Millisecond })
	d.dial(t, modern).isClosed(4408)
	await(t, "the socket is gone", func() bool { return d.transports.Connections() == 0 })
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
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
				must(t, conn.Close())
			}
			must(t, response.Body.Close())
		})
	}
}

func TestOperations(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.MaxOperations = 2 })

	t.Run("a subscription sends what happens, then complete", func(t *testing.T) {
		t.Parallel()
		p := d.session(t)
		p.subscribes("a", "subscription { numbers(count: 2) }")
		p.hears(`{"id":"a","type":"next","payload":{"data":{"numbers":0}}}`,
			`{"id":"a","type":"next","payload":{"data":{"numbers":1}}}`, `{"id":"a","type":"complete"}`)
	})

	t.Run("a query runs on the socket too, and its id may be used again", func(t *testing.T) {
		t.Parallel()
		p := d.session(t)
		for range 3 {
			p.subscribes("a", "{ hello }")
			p.hears(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
		}
	})

	t.Run("an invalid operation gets an error and nothing more", func(t *testing.T) {
		t.Parallel()
		p := d.session(t)
		p.subscribes("a", "{ nothing }")
		p.hears(`{"id":"a","type":"error","payload":[{"message":"Cannot query field \"nothing\" on type \"Query\".",` +
			`"locations":[{"line":1,"column":3}],"extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}`)
		p.isQuiet()
	})

	t.Run("one that is refused does as well", func(t *testing.T) {
		t.Parallel()
		p := d.session(t)
		p.subscribes("a", "subscription { refused }")
		p.hears(`{"id":"a","type":"error","payload":[{"message":"not for you","extensions":{"code":"FORBIDDEN"}}]}`)
		p.isQuiet()
	})

	t.Run("a panic ends its own operation only", func(t *testing.T) {
		t.Parallel()
		p := d.session(t)
		p.subscribes("other", "subscription { silence }")
		p.subscribes("a", "subscription { panic }")
		p.hears(`{"id":"a","type":"next","payload":{"data":{"panic":0}}}`,
			`{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
		p.subscribes("b", "{ panic }")
		p.hears(`{"id":"b","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
		p.isQuiet()
	})

	t.Run("complete is not answered and frees the id", func(t *testing.T) {
		t.Parallel()
		p := d.session(t)
		for range 5 {
			p.says(silence, `{"id":"1","type":"complete"}`)
		}
		p.says(`{"id":"never begun","type":"complete"}`)
		p.isQuiet()
	})

	t.Run("the answer of one that the client has ended is not said", func(t *testing.T) {
		t.Parallel()
		d := open(t, nil)
		p := d.session(t)
		p.subscribes("a", "mutation { stuck }")
		p.says(`{"id":"a","type":"complete"}`)
		p.subscribes("a", "subscription { silence }")
		p.isQuiet()
		close(d.toy.free)
		for range 100 { // each gives it time
			p.isQuiet()
		}
	})

	t.Run("one too many is refused, the others go on", func(t *testing.T) {
		t.Parallel()
		p := d.session(t)
		p.subscribes("a", "subscription { silence }")
		p.subscribes("b", "subscription { silence }")
		p.subscribes("c", "subscription { silence }")
		p.hears(`{"id":"c","type":"error","payload":[{"message":"too many operations on this socket",` +
			`"extensions":{"code":"TOO_MANY_OPERATIONS"}}]}`)
		p.says(`{"id":"a","type":"complete"}`)
		p.subscribes("c", "{ hello }")
		p.hears(`{"id":"c","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"c","type":"complete"}`)
	})
}

// isQuiet wants nothing to have been said before the answer to a ping.
func (p *peer) isQuiet() {
	p.t.Helper()
	p.says(`{"type":"ping"}`)
	p.hears(`{"type":"pong","payload":null}`)
}

func TestPing(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	p := d.dial(t, modern)
	p.says(`{"type":"ping","payload":{"before":"init"}}`, `{"type":"pong"}`)
	p.hears(`{"type":"pong","payload":{"before":"init"}}`)
	p.says(hello)
	p.hears(ack)
	p.isQuiet()
}

func TestOperationsAreCounted(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) {
		o.Before = func(context.Context) error { return context.DeadlineExceeded }
	})
	p := d.session(t)
	p.subscribes("a", "{ hello }")
	p.hears(`{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
}

// TestLegacyProtocol speaks as subscriptions-transport-ws does.
func TestLegacyProtocol(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.PingInterval = 50 * time.Millisecond })

	t.Run("a session", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t, legacy)
		p.says(`{"type":"connection_init","payload":{}}`)
		p.hears(ack, `{"type":"ka"}`)
		p.says(`{"id":"1","type":"start","payload":{"query":"subscription { numbers(count: 1) }"}}`)
		p.hears(`{"id":"1","type":"data","payload":{"data":{"numbers":0}}}`, `{"id":"1","type":"complete"}`)
		p.says(`{"id":"2","type":"start","payload":{"query":"{ nothing }"}}`)
		p.hears(`{"id":"2","type":"error","payload":{"message":"Cannot query field \"nothing\" on type \"Query\".",` +
			`"locations":[{"line":1,"column":3}],"extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}}`)
		p.says(`{"id":"3","type":"start","payload":{"query":"subscription { silence }"}}`, `{"id":"3","type":"stop"}`)
		p.hears(`{"type":"ka"}`, `{"type":"ka"}`)
		p.says(`{"type":"connection_terminate"}`)
		p.isClosed(1000)
	})

	t.Run("a refused key is told before the close", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t, legacy)
		p.says(`{"type":"connection_init","payload":{"apiKey":"bad"}}`)
		p.hears(`{"type":"connection_error","payload":{"message":"the API key is not known"}}`)
		p.isClosed(4403)
	})

	t.Run("ping is no word of it", func(t *testing.T) {
		t.Parallel()
		p := d.dial(t, legacy)
		p.says(`{"type":"ping"}`)
		p.isClosed(4400)
	})
}

func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*transport.Options){
		"in all":           func(o *transport.Options) { o.MaxConnections = 1 },
		"from one address": func(o *transport.Options) { o.MaxPerAddress = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, limit)
			first := d.session(t)
			second := d.dial(t, modern)
			second.says(hello) // on its way while the socket is closed
			second.isClosed(1013)
			stream := d.post(t, "subscription { silence }", "Accept", "text/event-stream")
			if stream.status != http.StatusServiceUnavailable || stream.header.Get("Retry-After") == "" {
				t.Errorf("an event stream beside it was answered %+v", stream)
			}
			must(t, first.Close())
			await(t, "there is room again", func() bool { return d.transports.Connections() == 0 })
			d.session(t)
		})
	}
	t.Run("with one key", func(t *testing.T) {
		t.Parallel()
		d := open(t, func(o *transport.Options) { o.MaxPerKey = 1 })
		withKey := `{"type":"connection_init","payload":{"apiKey":"k"}}`
		first := d.dial(t, modern)
		first.says(withKey)
		first.hears(ack)
		second := d.dial(t, modern)
		second.says(withKey)
		second.isClosed(1013)
		d.session(t)
	})
}

// TestCloseKey: a key that is revoked takes its own sockets along, told with the
// code that keeps clients from coming back, and lets nobody in who read it before.
func TestCloseKey(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	revoked, other := d.dial(t, modern), d.session(t)
	revoked.says(`{"type":"connection_init","payload":{"apiKey":"k"}}`, silence)
	revoked.hears(ack)
	d.transports.CloseKey("k")
	revoked.isClosed(4401)
	other.isQuiet()

	late := d.dial(t, modern)
	late.says(`{"type":"connection_init","payload":{"apiKey":"k"}}`)
	late.isClosed(4401)
}

// TestCloseKeyDoesNotWait: the store's writer calls it. A socket whose peer has
// stopped reading must not hold it up.
func TestCloseKeyDoesNotWait(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.WriteTimeout = time.Minute })
	for range 5 {
		p := d.dial(t, modern)
		p.says(`{"type":"connection_init","payload":{"apiKey":"k"}}`)
		p.hears(ack)
		p.subscribes("a", "subscription { flood }")
		p.stopsReading(d)
	}
	began := time.Now()
	d.transports.CloseKey("k")
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	await(t, "the sockets are gone", func() bool { return d.transports.Connections() == 0 })
}

// stopsReading waits until so much was sent to the peer that the server's writes
// are held up: what is acknowledged no longer grows.
func (p *peer) stopsReading(d *door) {
	p.t.Helper()
	other := d.session(p.t)
	for range 100 { // each round trip gives the flood time
		other.isQuiet()
	}
	must(p.t, other.Close())
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	p := d.session(t)
	p.says(silence)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.transports.Shutdown(t.Context())
	}()
	p.isClosed(1001)
	<-ended
	if n := d.transports.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	d.dial(t, modern).isClosed(1001)
	if stream := d.post(t, "subscription { silence }", "Accept", "text/event-stream"); stream.status != http.StatusServiceUnavailable {
		t.Errorf("an event stream was answered %+v", stream)
	}
}

// TestShutdownWaitsNoLongerThanItMay: an operation that does not end is left.
func TestShutdownWaitsNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	d.session(t).subscribes("a", "mutation { stuck }")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.transports.Shutdown(ctx)
	if n := d.transports.Connections(); n != 1 {
		t.Errorf("%d connections are counted, want the stuck one", n)
	}
	close(d.toy.free)
	d.transports.Shutdown(t.Context())
	if n := d.transports.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestSlowReader: a client that stops reading is cut off after the write time,
// whether or not it showed life before, and nobody else notices.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.WriteTimeout = 100 * time.Millisecond })
	other := d.session(t)
	slow := d.session(t)
	must(t, slow.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second)))
	slow.subscribes("a", "subscription { flood }")
	await(t, "the slow one is gone", func() bool {
		other.isQuiet()
		return d.transports.Connections() == 1
	})
	if n := d.transports.CutOff(); n != 1 {
		t.Errorf("%d are counted as cut off", n)
	}
	other.subscribes("a", "{ hello }")
	other.hears(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`)
}

// TestDeadPeer: one that answers no ping is let go.
func TestDeadPeer(t *testing.T) {
	t.Parallel()
	d := open(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
	dead, living := d.session(t), d.session(t)
	dead.SetPingHandler(func(string) error { return nil })
	go func() {
		for {
			if _, _, err := living.ReadMessage(); err != nil {
				return
			}
		}
	}()
	dead.isClosed(1001)
	await(t, "only the living is left", func() bool { return d.transports.Connections() == 1 })
}

// TestNothingIsLeftBehind is not parallel: it counts the goroutines of the
// process. Clients leave in every way there is.
func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	d := open(t, nil)
	for range 10 {
		polite := d.session(t)
		polite.says(silence)
		must(t, polite.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)))
		polite.isClosed(1000)

		rude := d.session(t)
		rude.says(silence)
		must(t, rude.NetConn().Close())

		wrong := d.session(t)
		wrong.says(silence, silence)
		wrong.isClosed(4409)

		d.dial(t, modern).says(`{"type":"connection_init","payload":7}`)
	}
	await(t, "every socket is gone", func() bool { return d.transports.Connections() == 0 })
	d.Close()
	await(t, "every goroutine is", func() bool { return runtime.NumGoroutine() <= before })
}
