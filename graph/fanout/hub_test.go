package fanout

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

const fakeSDL = `
directive @authenticated on FIELD_DEFINITION
directive @cacheControl(scope: Scope!) on FIELD_DEFINITION
enum Scope { PUBLIC PRIVATE }
type Query { x: Int }
type Subscription { posted(after: String): Event! updated: Event! @authenticated }
type Event { cursor(format: String): String! task: Task! }
type Task { title: String! result: String @cacheControl(scope: PRIVATE) }`

// fakeSchema renders every event as render does, and counts the renderings.
type fakeSchema struct {
	schema *ast.Schema
	render func(ctx context.Context, count int64) *graphql.Response
	count  atomic.Int64
}

func (s *fakeSchema) Schema() *ast.Schema { return s.schema }

func (s *fakeSchema) Complexity(context.Context, string, string, int, map[string]any) (int, bool) {
	return 0, false
}

func (s *fakeSchema) Exec(context.Context) graphql.ResponseHandler {
	count := s.count.Add(1)
	return func(ctx context.Context) *graphql.Response { return s.render(ctx, count) }
}

// testHub is a hub with a fake schema for the events of a new market.
type testHub struct {
	*Hub
	*markettest.Bundle
	fake *fakeSchema
}

func newTestHub(t *testing.T, timeout time.Duration, render func(ctx context.Context, count int64) *graphql.Response) *testHub {
	t.Helper()
	b := markettest.New(t)
	fake := &fakeSchema{schema: gqlparser.MustLoadSchema(&ast.Source{Input: fakeSDL}), render: render}
	hub, err := New(Options{
		Market: b.Market, Log: b.Log, Schema: fake, RenderTimeout: timeout,
		PresentError: func(_ context.Context, err error) *gqlerror.Error {
			code := models.CodeOf(err)
			if errors.Is(err, context.DeadlineExceeded) {
				code = models.Unavailable
			}
			return &gqlerror.Error{Message: err.Error(), Extensions: map[string]any{"code": string(code)}}
		},
		RecoverPanic: func(_ context.Context, p any) error { return models.Errorf(models.Internal, "panic: %v", p) },
	})
	testutil.Must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Log.Follow(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return &testHub{Hub: hub, Bundle: b, fake: fake}
}

// operationContext returns a context with a parsed operation.
func (h *testHub) operationContext(t *testing.T, document string, variables map[string]any) context.Context {
	t.Helper()
	doc, err := gqlparser.LoadQueryWithRules(h.fake.schema, document, nil)
	if err != nil {
		t.Fatal(err)
	}
	return graphql.WithOperationContext(t.Context(), &graphql.OperationContext{
		RawQuery: document, Doc: doc, Operation: doc.Operations[0], Variables: variables,
	})
}

// subscriber is a source with what its transport does: it reads when it is woken.
type subscriber struct {
	transport.Source
	ctx   context.Context // of the session
	woken chan struct{}
}

func (h *testHub) subscribe(ctx context.Context) *subscriber {
	s := &subscriber{ctx: ctx, woken: make(chan struct{}, 1)}
	interest := Interest{Interest: events.Interest{
		Topics: []events.Topic{events.PostedTasksTopic()}, Filter: func(e *models.Event) bool { return e.Kind == models.TaskPosted },
	}}
	s.Source = h.open(ctx, interest, func() {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	})
	s.woken <- struct{}{} // the transport reads a new source once
	return s
}

// next returns the next payload, or the code of the error that ends the subscription.
func (s *subscriber) next(t *testing.T) (payload []byte, code string) {
	t.Helper()
	timeout := time.After(testutil.Timeout)
	for {
		select {
		case <-s.woken:
			payload, done, errs := s.Next(s.ctx)
			if done {
				code, _ = errs[0].Extensions["code"].(string)
			}
			if done || payload != nil {
				return payload, code
			}
		case <-timeout:
			t.Fatal("timed out waiting for an event")
		}
	}
}

func dataOf(text string) *graphql.Response {
	return &graphql.Response{Data: []byte(`{"posted":"` + text + `"}`)}
}

// TestHub_rendersOnce checks that the members of a group share one rendering, that a
// private document is rendered for each subscriber, and that no group is left.
func TestHub_rendersOnce(t *testing.T) {
	t.Parallel()
	const size = 5
	for document, want := range map[string]int64{
		"subscription { posted { cursor task { title } } }":  1,
		"subscription { posted { cursor task { result } } }": size,
	} {
		h := newTestHub(t, time.Minute, func(ctx context.Context, _ int64) *graphql.Response {
			actor, _ := auth.FromContext(ctx)
			return dataOf(actor.AgentID)
		})
		poster, agent := h.NewAgent(), h.NewAgent()
		var all []*subscriber
		for range size {
			all = append(all, h.subscribe(auth.WithActor(h.operationContext(t, document, nil), agent)))
		}
		h.NewTask(poster, 10)
		for _, s := range all {
			payload, code := s.next(t)
			hasCaller := bytes.Contains(payload, []byte(agent.AgentID))
			if code != "" || hasCaller != (want == size) {
				t.Errorf("%s: got %s, %q", document, payload, code)
			}
			s.Close()
		}
		testutil.Equal(t, "renderings of "+document, h.fake.count.Load(), want)
		testutil.Equal(t, "groups", len(h.groups), 0)
	}
}

// TestHub_largePayload checks that a payload over the limit reaches every subscriber and
// is not cached.
func TestHub_largePayload(t *testing.T) {
	t.Parallel()
	large := string(bytes.Repeat([]byte("x"), maxPayloadBytes))
	h := newTestHub(t, time.Minute, func(context.Context, int64) *graphql.Response { return dataOf(large) })
	poster := h.NewAgent()
	var all []*subscriber
	for range 3 {
		all = append(all, h.subscribe(h.operationContext(t, "subscription { posted { cursor } }", nil)))
	}
	h.NewTask(poster, 10)
	for _, s := range all {
		if payload, code := s.next(t); len(payload) < maxPayloadBytes || code != "" {
			t.Errorf("got %d bytes, %q", len(payload), code)
		}
		s.Close()
	}
	testutil.Equal(t, "cached bytes", h.payloads.entries.Bytes(), 0)
	testutil.Equal(t, "cache entries", h.payloads.entries.Len(), 1)
}

// TestHub_renderTimeout checks that a rendering that hangs is cancelled. The members of
// the group then render the event themselves, or end with UNAVAILABLE.
func TestHub_renderTimeout(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		hanging int64 // renderings
		timeout time.Duration
		code    string
	}{
		"once":   {1, 2 * time.Second, ""}, // the other renderings take less
		"always": {1 << 20, 20 * time.Millisecond, string(models.Unavailable)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTestHub(t, row.timeout, func(ctx context.Context, count int64) *graphql.Response {
				if count > row.hanging {
					return dataOf("rendered")
				}
				<-ctx.Done()
				return nil
			})
			poster := h.NewAgent()
			var all []*subscriber
			for range 6 {
				all = append(all, h.subscribe(h.operationContext(t, "subscription { posted { cursor } }", nil)))
			}
			h.NewTask(poster, 10)
			for _, s := range all {
				if payload, code := s.next(t); code != row.code || (payload == nil) != (row.code != "") {
					t.Errorf("got %s, %q, want %q", payload, code, row.code)
				}
				s.Close()
			}
		})
	}
}

// TestGroupKey checks which operations share payloads.
func TestGroupKey(t *testing.T) {
	t.Parallel()
	h := newTestHub(t, time.Minute, nil)
	key := func(document string, variables map[string]any) (string, bool) {
		key, ok := groupKeyFor(graphql.GetOperationContext(h.operationContext(t, document, variables)))
		return string(key[:]), ok
	}
	for document, want := range map[string]bool{
		"subscription { posted { cursor task { title } } }":                                        true,
		"subscription { posted { task { result } } }":                                              false,
		"subscription { posted { ... on Event { task { ...T } } } } fragment T on Task { result }": false,
		"subscription { updated { cursor } }":                                                      false,
		"subscription { posted @include(if: true) { cursor } }":                                    false,
		"subscription { ... on Subscription { posted { cursor } } }":                               false,
	} {
		if _, ok := key(document, nil); ok != want {
			t.Errorf("%s: has a group: %t", document, ok)
		}
	}
	const document = "subscription($f: String, $after: String) { posted(after: $after) { cursor(format: $f) } }"
	a, _ := key(document, map[string]any{"f": "a", "after": "1"})
	same, _ := key(document, map[string]any{"f": "a", "after": "2"})
	other, _ := key(document, map[string]any{"f": "b", "after": "1"})
	if a != same || a == other {
		t.Errorf("same key: %t for another root argument, %t for another variable below", a == same, a == other)
	}
}
