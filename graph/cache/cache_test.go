package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
)

// newTestCache returns a cache for a new market.
func newTestCache(t *testing.T) (*markettest.Bundle, *Cache) {
	t.Helper()
	b := markettest.New(t)
	c, err := New(Options{DB: b.DB, Now: b.Clock.Now, NextDeadline: b.NextDeadline})
	testutil.Must(t, err)
	return b, c
}

func testKey(text string) Key { return KeyFor(context.Background(), text, true) }

// countingExecute returns a function that executes a request and counts its calls.
func countingExecute(calls *atomic.Int64, body string) func(context.Context) *Response {
	return func(context.Context) *Response {
		calls.Add(1)
		return &Response{Body: []byte(body), Cacheable: true}
	}
}

// TestCache_singleFlight checks that concurrent calls with the same key share one
// execution.
func TestCache_singleFlight(t *testing.T) {
	t.Parallel()
	_, c := newTestCache(t)
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		started, finish := make(chan struct{}), make(chan struct{})
		var callers sync.WaitGroup
		get := func() {
			if got := c.Get(t.Context(), testKey("same"), func(ctx context.Context) *Response {
				close(started)
				<-finish
				return countingExecute(&calls, "body")(ctx)
			}); string(got.Body) != "body" {
				t.Errorf("got %q", got.Body)
			}
		}
		callers.Go(get)
		<-started
		for range 20 {
			callers.Go(get)
		}
		synctest.Wait() // until all of them wait
		close(finish)
		callers.Wait()
		testutil.Equal(t, "executions", calls.Load(), 1)
	})
}

// TestCache_cancelledCaller checks that a cancelled caller does not fail the callers that
// wait for its response: one of them executes the request for the others.
func TestCache_cancelledCaller(t *testing.T) {
	t.Parallel()
	_, c := newTestCache(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		started := make(chan struct{})
		callers.Go(func() {
			c.Get(ctx, testKey("same"), func(ctx context.Context) *Response {
				close(started)
				<-ctx.Done()
				return &Response{Err: ctx.Err()}
			})
		})
		<-started
		var calls atomic.Int64
		for range 20 {
			callers.Go(func() {
				if got := c.Get(t.Context(), testKey("same"), countingExecute(&calls, "body")); string(got.Body) != "body" {
					t.Errorf("got %q, %v", got.Body, got.Err)
				}
			})
		}
		waiterCtx, cancelWaiter := context.WithCancel(t.Context())
		callers.Go(func() {
			if got := c.Get(waiterCtx, testKey("same"), func(ctx context.Context) *Response { return &Response{Err: ctx.Err()} }); got.Err == nil {
				t.Errorf("got %q", got.Body)
			}
		})
		synctest.Wait()
		cancelWaiter()
		synctest.Wait()
		cancel()
		callers.Wait()
		testutil.Equal(t, "executions", calls.Load(), 1)
	})
}

// TestCache_errorsNotCached checks that errors are not cached and that a panic does not
// block later callers.
func TestCache_errorsNotCached(t *testing.T) {
	t.Parallel()
	_, c := newTestCache(t)
	var calls atomic.Int64
	for range 3 {
		c.Get(t.Context(), testKey("error"), func(context.Context) *Response {
			calls.Add(1)
			return &Response{Err: context.DeadlineExceeded}
		})
	}
	testutil.Equal(t, "executions", calls.Load(), 3)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		c.Get(t.Context(), testKey("panic"), func(context.Context) *Response { panic("a fault") })
	}()
	if got := c.Get(t.Context(), testKey("panic"), countingExecute(&calls, "body")); string(got.Body) != "body" {
		t.Errorf("after a panic: %q", got.Body)
	}
}

// TestCache_memoryLimits checks the limits on entries and bytes, and that a response
// replaces the previous one of its key.
func TestCache_memoryLimits(t *testing.T) {
	t.Parallel()
	b, c := newTestCache(t)
	var calls atomic.Int64
	for i := range maxEntries + 10 {
		c.Get(t.Context(), testKey(strconv.Itoa(i)), countingExecute(&calls, "b"))
	}
	if c.entries.Len() != maxEntries || c.entries.Bytes() != maxEntries {
		t.Errorf("%d entries of %d bytes", c.entries.Len(), c.entries.Bytes())
	}
	large := strings.Repeat("b", maxEntryBytes)
	for i := range maxCacheBytes/maxEntryBytes + 10 {
		c.Get(t.Context(), testKey(fmt.Sprint("large", i)), countingExecute(&calls, large))
	}
	if c.entries.Len() < maxCacheBytes/maxEntryBytes || c.entries.Bytes() > maxCacheBytes {
		t.Errorf("%d entries of %d bytes", c.entries.Len(), c.entries.Bytes())
	}
	calls.Store(0)
	for range 2 {
		c.Get(t.Context(), testKey("too large"), countingExecute(&calls, large+"b"))
	}
	testutil.Equal(t, "executions of a request with a body over the limit", calls.Load(), 2)
	countAgents := func(ctx context.Context) *Response {
		_, err := b.CountAgents(ctx, market.AgentQuery{})
		testutil.Must(t, err)
		return countingExecute(&calls, "body")(ctx)
	}
	calls.Store(0)
	before := c.entries.Bytes()
	for range 3 {
		c.Get(t.Context(), testKey("agents"), countAgents)
		b.NewAgent()
		c.Get(t.Context(), testKey("agents"), countAgents)
		c.Get(t.Context(), testKey("agents"), countAgents)
	}
	testutil.Equal(t, "executions", calls.Load(), 4)
	if added := c.entries.Bytes() - before; added > len("body") {
		t.Errorf("one key takes %d bytes", added)
	}
}

// TestCache_keys checks which requests share a key.
func TestCache_keys(t *testing.T) {
	t.Parallel()
	b, _ := newTestCache(t)
	agent := auth.WithActor(t.Context(), b.NewAgent())
	other := auth.WithActor(t.Context(), b.NewAgent())
	if KeyFor(agent, "tasks", false) != KeyFor(other, "tasks", false) {
		t.Error("agents do not share a public request")
	}
	if KeyFor(agent, "wallet", true) == KeyFor(other, "wallet", true) || KeyFor(agent, "wallet", true) == KeyFor(t.Context(), "wallet", true) {
		t.Error("callers share a private request")
	}
	if KeyFor(agent, "tasks", false) == KeyFor(agent, "agents", false) {
		t.Error("different requests share a key")
	}
}
