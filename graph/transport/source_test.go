package transport_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// scriptedSource is a source whose responses are commands pushed by the test: a number
// is sent, repeat sends 1 forever, poll requests another poll without a response,
// block blocks until unblock is closed, and end, fail and panic end the subscription.
type scriptedSource struct {
	wake    func()
	closed  chan struct{}
	blocked chan struct{} // closed when the block command has started
	unblock chan struct{}

	mu       sync.Mutex
	commands []string
}

// interceptOperation continues the subscription "scripted" as a scripted source.
func (s *fakeSchema) interceptOperation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	field, ok := graphql.GetOperationContext(ctx).Operation.SelectionSet[0].(*ast.Field)
	if !ok || field.Name != "scripted" {
		return next(ctx)
	}
	return graphql.OneShot(transport.SourceResponse(func(wake func()) transport.Source {
		source := &scriptedSource{wake: wake, closed: make(chan struct{}), blocked: make(chan struct{}), unblock: make(chan struct{})}
		s.sources <- source
		return source
	}))
}

func (source *scriptedSource) push(commands ...string) {
	source.mu.Lock()
	source.commands = append(source.commands, commands...)
	source.mu.Unlock()
	source.wake()
}

func (source *scriptedSource) Next(ctx context.Context) (payload []byte, done bool, errs gqlerror.List) {
	source.mu.Lock()
	defer source.mu.Unlock()
	if len(source.commands) == 0 {
		return nil, false, nil
	}
	command := source.commands[0]
	switch command {
	case "repeat":
		return transport.MarshalResponse(dataResponse("scripted", 1)), false, nil
	case "poll":
		source.wake()
		return nil, false, nil
	}
	source.commands = source.commands[1:]
	switch command {
	case "end":
		return nil, true, nil
	case "fail":
		return nil, true, gqlerror.List{presentError(ctx, models.Errorf(models.SlowConsumer, "too slow"))}
	case "panic":
		panic("the secret is hunter2")
	case "block":
		close(source.blocked)
		<-source.unblock
		return transport.MarshalResponse(dataResponse("scripted", "too late")), false, nil
	default:
		return transport.MarshalResponse(dataResponse("scripted", json.RawMessage(command))), false, nil
	}
}

// Close panics if it is called twice.
func (source *scriptedSource) Close() { close(source.closed) }

func (source *scriptedSource) expectClosed(t *testing.T) {
	t.Helper()
	testutil.Eventually(t, "the source to close", func() bool {
		select {
		case <-source.closed:
			return true
		default:
			return false
		}
	})
}

func scriptedMessage(number int) string {
	return `{"id":"a","type":"next","payload":{"data":{"scripted":` + strconv.Itoa(number) + `}}}`
}

// TestSource checks that a source's responses are sent in order and that the source is
// closed exactly once, however the subscription ends.
func TestSource(t *testing.T) { //nolint:tparallel // each subtest receives the source that it started
	t.Parallel()
	server := startServer(t, nil)
	start := func(t *testing.T) (*wsClient, *scriptedSource) {
		t.Helper()
		client := server.connect(t)
		client.subscribe("a", "subscription { scripted }")
		source := <-server.schema.sources
		for i := range 3 { // two responses per wakeup
			source.push(strconv.Itoa(2*i), strconv.Itoa(2*i+1))
			client.expect(scriptedMessage(2*i), scriptedMessage(2*i+1))
		}
		return client, source
	}
	const next = 6

	for name, tt := range map[string]struct {
		end  func(*wsClient, *scriptedSource)
		want string
	}{
		"complete":              {func(_ *wsClient, source *scriptedSource) { source.push("end") }, `{"id":"a","type":"complete"}`},
		"error":                 {func(_ *wsClient, source *scriptedSource) { source.push("fail") }, `{"id":"a","type":"error","payload":[{"message":"too slow","extensions":{"code":"SLOW_CONSUMER"}}]}`},
		"panic":                 {func(_ *wsClient, source *scriptedSource) { source.push("panic") }, `{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`},
		"stopped by the client": {func(client *wsClient, _ *scriptedSource) { client.send(`{"id":"a","type":"complete"}`) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			client, source := start(t)
			source.push(strconv.Itoa(next))
			client.expect(scriptedMessage(next))
			tt.end(client, source)
			if tt.want != "" {
				client.expect(tt.want)
			}
			source.expectClosed(t)
			source.push("7") // after the end
			client.expectNoMessage()
			client.subscribe("a", "{ hello }") // the id can be reused
			client.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
		})
	}
	t.Run("socket closed", func(t *testing.T) {
		client, source := start(t)
		testutil.Must(t, client.Close())
		source.expectClosed(t)
	})
	t.Run("more than one write", func(t *testing.T) {
		client, source := start(t)
		const count = 2000
		var commands, texts []string
		for i := range count {
			commands, texts = append(commands, strconv.Itoa(i)), append(texts, scriptedMessage(i))
		}
		source.push(commands...)
		client.expect(texts...)
	})
	t.Run("two sources on one socket alternate", func(t *testing.T) {
		client, first := start(t)
		client.subscribe("b", "subscription { scripted }")
		second := <-server.schema.sources
		first.push("repeat")
		second.push("2")
		for {
			_, text, err := client.ReadMessage() // times out if only the first source is polled
			testutil.Must(t, err)
			if strings.Contains(string(text), `"id":"b"`) {
				return
			}
		}
	})
	t.Run("polling source does not block others", func(t *testing.T) {
		client, polling := start(t)
		polling.push("poll")
		client.expectNoMessage()
		client.subscribe("b", "subscription { scripted }")
		second := <-server.schema.sources
		second.push("2", "end")
		client.expect(strings.Replace(scriptedMessage(2), `"a"`, `"b"`, 1), `{"id":"b","type":"complete"}`)
		client.send(`{"id":"a","type":"complete"}`)
		polling.expectClosed(t)
		client.expectNoMessage()
	})
	t.Run("response after the client has stopped the operation is dropped", func(t *testing.T) {
		client, source := start(t)
		source.push("block")
		<-source.blocked
		client.send(`{"id":"a","type":"complete"}`)
		source.expectClosed(t)
		client.subscribe("a", "{ hello }")
		close(source.unblock)
		client.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
	})
}

// TestSource_eventStream tests sources over server-sent events.
func TestSource_eventStream(t *testing.T) { //nolint:tparallel // each subtest receives the source that it started
	t.Parallel()
	server := startServer(t, nil)
	t.Run("polling source sends heartbeats", func(t *testing.T) {
		server := startServer(t, func(o *transport.Options) { o.PingInterval = 20 * time.Millisecond })
		ctx, cancel := context.WithCancel(t.Context())
		stream := server.openStream(ctx, t, "", "subscription { scripted }")
		source := <-server.schema.sources
		source.push("poll")
		stream.expectHeartbeats(3)
		cancel()
		source.expectClosed(t)
	})
	t.Run("error", func(t *testing.T) {
		stream := server.openStream(t.Context(), t, "", "subscription { scripted }")
		source := <-server.schema.sources
		source.push("1", "2")
		source.push("fail")
		want := nextEvent(`{"data":{"scripted":1}}`) + nextEvent(`{"data":{"scripted":2}}`) +
			nextEvent(`{"errors":[{"message":"too slow","extensions":{"code":"SLOW_CONSUMER"}}]}`) + completeEvent
		if got := stream.readAll(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		source.expectClosed(t)
	})
	t.Run("client disconnects", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		server.openStream(ctx, t, "", "subscription { scripted }")
		source := <-server.schema.sources
		cancel()
		source.expectClosed(t)
	})
}

// TestSource_shutdown checks that Shutdown closes sources before it returns.
func TestSource_shutdown(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	client := server.connect(t)
	client.subscribe("a", "subscription { scripted }")
	source := <-server.schema.sources
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.transports.Shutdown(context.WithoutCancel(t.Context()))
	}()
	client.expectClose(1001)
	testutil.Must(t, client.Close())
	<-done
	select {
	case <-source.closed:
	default:
		t.Error("the source is not closed")
	}
}
