package transport_test

import (
	"context"
	"testing"

	"agentmarket.space/server/graph/transport"
)

func TestOperations(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.MaxOperations = 2 })

	t.Run("subscription", func(t *testing.T) {
		t.Parallel()
		client := server.connect(t)
		client.subscribe("a", "subscription { numbers(count: 2) }")
		client.expect(`{"id":"a","type":"next","payload":{"data":{"numbers":0}}}`,
			`{"id":"a","type":"next","payload":{"data":{"numbers":1}}}`, `{"id":"a","type":"complete"}`)
	})

	t.Run("query, then reuse of its id", func(t *testing.T) {
		t.Parallel()
		client := server.connect(t)
		for range 3 {
			client.subscribe("a", "{ hello }")
			client.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
		}
	})

	t.Run("invalid operation gets one error", func(t *testing.T) {
		t.Parallel()
		client := server.connect(t)
		client.subscribe("a", "{ nothing }")
		client.expect(`{"id":"a","type":"error","payload":[{"message":"Cannot query field \"nothing\" on type \"Query\".",` +
			`"locations":[{"line":1,"column":3}],"extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}`)
		client.expectNoMessage()
	})

	t.Run("forbidden operation gets one error", func(t *testing.T) {
		t.Parallel()
		client := server.connect(t)
		client.subscribe("a", "subscription { refused }")
		client.expect(`{"id":"a","type":"error","payload":[{"message":"not for you","extensions":{"code":"FORBIDDEN"}}]}`)
		client.expectNoMessage()
	})

	t.Run("panic ends only its own operation", func(t *testing.T) {
		t.Parallel()
		client := server.connect(t)
		client.subscribe("other", "subscription { silence }")
		client.subscribe("a", "subscription { panic }")
		client.expect(`{"id":"a","type":"next","payload":{"data":{"panic":0}}}`,
			`{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
		client.subscribe("b", "{ panic }")
		client.expect(`{"id":"b","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
		client.expectNoMessage()
	})

	t.Run("complete has no response and frees the id", func(t *testing.T) {
		t.Parallel()
		client := server.connect(t)
		for range 5 {
			client.send(subscribeSilence, `{"id":"1","type":"complete"}`)
		}
		client.send(`{"id":"unknown","type":"complete"}`)
		client.expectNoMessage()
	})

	t.Run("response of a stopped operation is dropped", func(t *testing.T) {
		t.Parallel()
		server := startServer(t, nil)
		client := server.connect(t)
		client.subscribe("a", "mutation { stuck }")
		client.send(`{"id":"a","type":"complete"}`)
		client.subscribe("a", "subscription { silence }")
		client.expectNoMessage()
		close(server.schema.unblock)
		for range 100 { // gives the mutation time to respond
			client.expectNoMessage()
		}
	})

	t.Run("operations over the limit are rejected", func(t *testing.T) {
		t.Parallel()
		client := server.connect(t)
		client.subscribe("a", "subscription { silence }")
		client.subscribe("b", "subscription { silence }")
		client.subscribe("c", "subscription { silence }")
		client.expect(`{"id":"c","type":"error","payload":[{"message":"too many operations on this socket",` +
			`"extensions":{"code":"TOO_MANY_OPERATIONS"}}]}`)
		client.send(`{"id":"a","type":"complete"}`)
		client.subscribe("c", "{ hello }")
		client.expect(`{"id":"c","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"c","type":"complete"}`)
	})
}

func TestPing(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	client := server.dial(t, graphqlTransportWS)
	client.send(`{"type":"ping","payload":{"before":"init"}}`, `{"type":"pong"}`)
	client.expect(`{"type":"pong","payload":{"before":"init"}}`)
	client.send(initMessage)
	client.expect(ackMessage)
	client.expectNoMessage()
}

func TestBeforeOperation(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) {
		o.BeforeOperation = func(context.Context) error { return context.DeadlineExceeded }
	})
	client := server.connect(t)
	client.subscribe("a", "{ hello }")
	client.expect(`{"id":"a","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`)
}
