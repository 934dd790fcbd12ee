package transport_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// scriptedSource is a source that says what it is told to: numbers, 1 for ever, and the
// words end, fail and panic. From the word seek on it looks for something in vain;
// with the word hold it keeps who asks until it is let go.
type scriptedSource struct {
	wake    func()
	closed  chan struct{}
	blocked chan struct{} // closed once it holds
	unblock chan struct{}

	mu       sync.Mutex
	commands []string
}

// attachSource hands the subscription of ctx over to a script.
func (s *fakeSchema) attachSource(ctx context.Context) {
	transport.AttachSource(ctx, func(wake func()) transport.Source {
		begun := &scriptedSource{wake: wake, closed: make(chan struct{}), blocked: make(chan struct{}), unblock: make(chan struct{})}
		s.sources <- begun
		return begun
	})
}

func (s *scriptedSource) push(words ...string) {
	s.mu.Lock()
	s.commands = append(s.commands, words...)
	s.mu.Unlock()
	s.wake()
}

func (s *scriptedSource) Next(ctx context.Context) (payload []byte, over bool, errs gqlerror.List) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.commands) == 0 {
		return nil, false, nil
	}
	word := s.commands[0]
	switch word {
	case "for ever":
		return transport.MarshalResponse(dataResponse("handed", 1)), false, nil
	case "seek":
		s.wake()
		return nil, false, nil
	}
	s.commands = s.commands[1:]
	switch word {
	case "end":
		return nil, true, nil
	case "fail":
		return nil, true, gqlerror.List{presentError(ctx, models.Errorf(models.SlowConsumer, "too slow"))}
	case "panic":
		panic("the secret is hunter2")
	case "hold":
		close(s.blocked)
		<-s.unblock
		return transport.MarshalResponse(dataResponse("handed", "too late")), false, nil
	default:
		return transport.MarshalResponse(dataResponse("handed", json.RawMessage(word))), false, nil
	}
}

// Close panics when it is called twice.
func (s *scriptedSource) Close() { close(s.closed) }

func (s *scriptedSource) expectClosed(t *testing.T) {
	t.Helper()
	testutil.Eventually(t, "the source is closed", func() bool {
		select {
		case <-s.closed:
			return true
		default:
			return false
		}
	})
}

func scriptedMessage(number int) string {
	return `{"id":"a","type":"next","payload":{"data":{"handed":` + strconv.Itoa(number) + `}}}`
}

// TestSource: a subscription that was handed over says what its source has, when
// it has it, and ends in every way there is with its source closed once.
func TestSource(t *testing.T) { //nolint:tparallel // each takes the script that it began
	t.Parallel()
	d := startServer(t, nil)
	begin := func(t *testing.T) (*wsClient, *scriptedSource) {
		t.Helper()
		p := d.connect(t)
		p.subscribe("a", "subscription { handed }")
		s := <-d.schema.sources
		for i := range 3 { // one after the other, and two at once
			s.push(strconv.Itoa(2*i), strconv.Itoa(2*i+1))
			p.expect(scriptedMessage(2*i), scriptedMessage(2*i+1))
		}
		return p, s
	}
	const begun = 6

	for name, row := range map[string]struct {
		end   func(*wsClient, *scriptedSource)
		hears string
	}{
		"it is over":         {func(_ *wsClient, s *scriptedSource) { s.push("end") }, `{"id":"a","type":"complete"}`},
		"it breaks off":      {func(_ *wsClient, s *scriptedSource) { s.push("fail") }, `{"id":"a","type":"error","payload":[{"message":"too slow","extensions":{"code":"SLOW_CONSUMER"}}]}`},
		"it panics":          {func(_ *wsClient, s *scriptedSource) { s.push("panic") }, `{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`},
		"the client ends it": {func(p *wsClient, _ *scriptedSource) { p.send(`{"id":"a","type":"complete"}`) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := begin(t)
			s.push(strconv.Itoa(begun))
			p.expect(scriptedMessage(begun))
			row.end(p, s)
			if row.hears != "" {
				p.expect(row.hears)
			}
			s.expectClosed(t)
			s.push("7") // too late
			p.expectNoMessage()
			p.subscribe("a", "{ hello }") // its id may be used again
			p.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
		})
	}
	t.Run("the socket goes", func(t *testing.T) {
		p, s := begin(t)
		testutil.Must(t, p.Close())
		s.expectClosed(t)
	})
	t.Run("more than is written at once", func(t *testing.T) {
		p, s := begin(t)
		const many = 2000
		var words, texts []string
		for i := range many {
			words, texts = append(words, strconv.Itoa(i)), append(texts, scriptedMessage(i))
		}
		s.push(words...)
		p.expect(texts...)
	})
	t.Run("two on one socket take turns", func(t *testing.T) {
		p, first := begin(t)
		p.subscribe("b", "subscription { handed }")
		second := <-d.schema.sources
		first.push("for ever")
		second.push("2")
		for {
			_, text, err := p.ReadMessage() // in vain if the first never lets go
			testutil.Must(t, err)
			if strings.Contains(string(text), `"id":"b"`) {
				return
			}
		}
	})
	t.Run("one that seeks keeps nobody, and is let go", func(t *testing.T) {
		p, seeking := begin(t)
		seeking.push("seek")
		p.expectNoMessage()
		p.subscribe("b", "subscription { handed }")
		second := <-d.schema.sources
		second.push("2", "end")
		p.expect(strings.Replace(scriptedMessage(2), `"a"`, `"b"`, 1), `{"id":"b","type":"complete"}`)
		p.send(`{"id":"a","type":"complete"}`)
		seeking.expectClosed(t)
		p.expectNoMessage()
	})
	t.Run("one that seeks shows life over server-sent events, and is let go", func(t *testing.T) {
		d := startServer(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
		ctx, cancel := context.WithCancel(t.Context())
		stream := d.openStream(ctx, t, "", "subscription { handed }")
		s := <-d.schema.sources
		s.push("seek")
		stream.expectHeartbeats(3)
		cancel()
		s.expectClosed(t)
	})
	t.Run("what it has for a client that has ended it is not said", func(t *testing.T) {
		p, s := begin(t)
		s.push("hold")
		<-s.blocked
		p.send(`{"id":"a","type":"complete"}`)
		s.expectClosed(t)
		p.subscribe("a", "{ hello }")
		close(s.unblock)
		p.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
	})
	t.Run("over server-sent events", func(t *testing.T) {
		stream := d.openStream(t.Context(), t, "", "subscription { handed }")
		s := <-d.schema.sources
		s.push("1", "2")
		s.push("fail")
		want := nextEvent(`{"data":{"handed":1}}`) + nextEvent(`{"data":{"handed":2}}`) +
			nextEvent(`{"errors":[{"message":"too slow","extensions":{"code":"SLOW_CONSUMER"}}]}`) + completeEvent
		if got := stream.readAll(); got != want {
			t.Errorf("read %s, want %s", got, want)
		}
		s.expectClosed(t)
	})
	t.Run("the reader of server-sent events goes", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d.openStream(ctx, t, "", "subscription { handed }")
		s := <-d.schema.sources
		cancel()
		s.expectClosed(t)
	})
}

// TestSource_shutdown: the server's end closes sources too, and waits for that.
func TestSource_shutdown(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	p := d.connect(t)
	p.subscribe("a", "subscription { handed }")
	s := <-d.schema.sources
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.transports.Shutdown(context.WithoutCancel(t.Context()))
	}()
	p.expectClose(1001)
	testutil.Must(t, p.Close())
	<-ended
	select {
	case <-s.closed:
	default:
		t.Error("the source is open")
	}
}
