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
	"agentmarket.space/server/models"
)

// script is a source that says what it is told to: numbers, 1 for ever, and the
// words end, fail and panic. From the word seek on it looks for something in vain;
// with the word hold it keeps who asks until it is let go.
type script struct {
	wake   func()
	closed chan struct{}
	held   chan struct{} // closed once it holds
	letGo  chan struct{}

	mu    sync.Mutex
	words []string
}

// begin hands the subscription of ctx over to a script.
func (s *toy) begin(ctx context.Context) {
	transport.HandOver(ctx, func(wake func()) transport.Source {
		begun := &script{wake: wake, closed: make(chan struct{}), held: make(chan struct{}), letGo: make(chan struct{})}
		s.scripts <- begun
		return begun
	})
}

func (s *script) says(words ...string) {
	s.mu.Lock()
	s.words = append(s.words, words...)
	s.mu.Unlock()
	s.wake()
}

func (s *script) Next(ctx context.Context) (payload []byte, over bool, errs gqlerror.List) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.words) == 0 {
		return nil, false, nil
	}
	word := s.words[0]
	switch word {
	case "for ever":
		return transport.Payload(data("handed", 1)), false, nil
	case "seek":
		s.wake()
		return nil, false, nil
	}
	s.words = s.words[1:]
	switch word {
	case "end":
		return nil, true, nil
	case "fail":
		return nil, true, gqlerror.List{present(ctx, models.Errorf(models.SlowConsumer, "too slow"))}
	case "panic":
		panic("the secret is hunter2")
	case "hold":
		close(s.held)
		<-s.letGo
		return transport.Payload(data("handed", "too late")), false, nil
	default:
		return transport.Payload(data("handed", json.RawMessage(word))), false, nil
	}
}

// Close panics when it is called twice.
func (s *script) Close() { close(s.closed) }

func (s *script) isClosed(t *testing.T) {
	t.Helper()
	await(t, "the source is closed", func() bool {
		select {
		case <-s.closed:
			return true
		default:
			return false
		}
	})
}

func handed(number int) string {
	return `{"id":"a","type":"next","payload":{"data":{"handed":` + strconv.Itoa(number) + `}}}`
}

// TestSource: a subscription that was handed over says what its source has, when
// it has it, and ends in every way there is with its source closed once.
func TestSource(t *testing.T) { //nolint:tparallel // each takes the script that it began
	t.Parallel()
	d := open(t, nil)
	begin := func(t *testing.T) (*peer, *script) {
		t.Helper()
		p := d.session(t)
		p.subscribes("a", "subscription { handed }")
		s := <-d.toy.scripts
		for i := range 3 { // one after the other, and two at once
			s.says(strconv.Itoa(2*i), strconv.Itoa(2*i+1))
			p.hears(handed(2*i), handed(2*i+1))
		}
		return p, s
	}
	const begun = 6

	for name, row := range map[string]struct {
		end   func(*peer, *script)
		hears string
	}{
		"it is over":         {func(_ *peer, s *script) { s.says("end") }, `{"id":"a","type":"complete"}`},
		"it breaks off":      {func(_ *peer, s *script) { s.says("fail") }, `{"id":"a","type":"error","payload":[{"message":"too slow","extensions":{"code":"SLOW_CONSUMER"}}]}`},
		"it panics":          {func(_ *peer, s *script) { s.says("panic") }, `{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`},
		"the client ends it": {func(p *peer, _ *script) { p.says(`{"id":"a","type":"complete"}`) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := begin(t)
			s.says(strconv.Itoa(begun))
			p.hears(handed(begun))
			row.end(p, s)
			if row.hears != "" {
				p.hears(row.hears)
			}
			s.isClosed(t)
			s.says("7") // too late
			p.isQuiet()
			p.subscribes("a", "{ hello }") // its id may be used again
			p.hears(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
		})
	}
	t.Run("the socket goes", func(t *testing.T) {
		p, s := begin(t)
		must(t, p.Close())
		s.isClosed(t)
	})
	t.Run("more than is written at once", func(t *testing.T) {
		p, s := begin(t)
		const many = 2000
		var words, texts []string
		for i := range many {
			words, texts = append(words, strconv.Itoa(i)), append(texts, handed(i))
		}
		s.says(words...)
		p.hears(texts...)
	})
	t.Run("two on one socket take turns", func(t *testing.T) {
		p, first := begin(t)
		p.subscribes("b", "subscription { handed }")
		second := <-d.toy.scripts
		first.says("for ever")
		second.says("2")
		for {
			_, text, err := p.ReadMessage() // in vain if the first never lets go
			must(t, err)
			if strings.Contains(string(text), `"id":"b"`) {
				return
			}
		}
	})
	t.Run("one that seeks keeps nobody, and is let go", func(t *testing.T) {
		p, seeking := begin(t)
		seeking.says("seek")
		p.isQuiet()
		p.subscribes("b", "subscription { handed }")
		second := <-d.toy.scripts
		second.says("2", "end")
		p.hears(strings.Replace(handed(2), `"a"`, `"b"`, 1), `{"id":"b","type":"complete"}`)
		p.says(`{"id":"a","type":"complete"}`)
		seeking.isClosed(t)
		p.isQuiet()
	})
	t.Run("one that seeks shows life over server-sent events, and is let go", func(t *testing.T) {
		d := open(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
		ctx, cancel := context.WithCancel(t.Context())
		stream := d.subscribe(ctx, t, "", "subscription { handed }")
		s := <-d.toy.scripts
		s.says("seek")
		stream.showsLife(3)
		cancel()
		s.isClosed(t)
	})
	t.Run("what it has for a client that has ended it is not said", func(t *testing.T) {
		p, s := begin(t)
		s.says("hold")
		<-s.held
		p.says(`{"id":"a","type":"complete"}`)
		s.isClosed(t)
		p.subscribes("a", "{ hello }")
		close(s.letGo)
		p.hears(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
	})
	t.Run("over server-sent events", func(t *testing.T) {
		stream := d.subscribe(t.Context(), t, "", "subscription { handed }")
		s := <-d.toy.scripts
		s.says("1", "2")
		s.says("fail")
		want := next(`{"data":{"handed":1}}`) + next(`{"data":{"handed":2}}`) +
			next(`{"errors":[{"message":"too slow","extensions":{"code":"SLOW_CONSUMER"}}]}`) + complete
		if got := stream.rest(); got != want {
			t.Errorf("read %s, want %s", got, want)
		}
		s.isClosed(t)
	})
	t.Run("the reader of server-sent events goes", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d.subscribe(ctx, t, "", "subscription { handed }")
		s := <-d.toy.scripts
		cancel()
		s.isClosed(t)
	})
}

// TestSource_shutdown: the server's end closes sources too, and waits for that.
func TestSource_shutdown(t *testing.T) {
	t.Parallel()
	d := open(t, nil)
	p := d.session(t)
	p.subscribes("a", "subscription { handed }")
	s := <-d.toy.scripts
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.transports.Shutdown(context.WithoutCancel(t.Context()))
	}()
	p.isClosed(1001)
	must(t, p.Close())
	<-ended
	select {
	case <-s.closed:
	default:
		t.Error("the source is open")
	}
}
