package graph

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
)

// newTestCache returns a store of answers about a fresh market.
func newTestCache(t *testing.T) *Cache {
	t.Helper()
	a, err := NewCache(markettest.New(t).Market)
	testutil.Must(t, err)
	return a
}

func testKey(text string) Key { return KeyFor(context.Background(), text, true) }

// countingResponse returns what makes an answer, and counts how often it does.
func countingResponse(times *atomic.Int64, body string) func(context.Context) *Response {
	return func(context.Context) *Response {
		times.Add(1)
		return &Response{Body: []byte(body), Cacheable: true}
	}
}

// TestCache_singleFlight: who asks while an answer is being made gets that one.
func TestCache_singleFlight(t *testing.T) {
	t.Parallel()
	a := newTestCache(t)
	synctest.Test(t, func(t *testing.T) {
		var times atomic.Int64
		begun, finish := make(chan struct{}), make(chan struct{})
		var askers sync.WaitGroup
		ask := func() {
			if got := a.Get(t.Context(), testKey("same"), func(ctx context.Context) *Response {
				close(begun)
				<-finish
				return countingResponse(&times, "body")(ctx)
			}); string(got.Body) != "body" {
				t.Errorf("got %q", got.Body)
			}
		}
		askers.Go(ask)
		<-begun
		for range 20 {
			askers.Go(ask)
		}
		synctest.Wait() // all of them wait
		close(finish)
		askers.Wait()
		if n := times.Load(); n != 1 {
			t.Errorf("it was answered %d times", n)
		}
	})
}

// TestCache_cancelledCaller: a caller that goes away takes nobody along: the next one
// makes the answer, for all that wait.
func TestCache_cancelledCaller(t *testing.T) {
	t.Parallel()
	a := newTestCache(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		var askers sync.WaitGroup
		begun := make(chan struct{})
		askers.Go(func() {
			a.Get(ctx, testKey("same"), func(ctx context.Context) *Response {
				close(begun)
				<-ctx.Done()
				return &Response{Err: ctx.Err()}
			})
		})
		<-begun
		var times atomic.Int64
		for range 20 {
			askers.Go(func() {
				if got := a.Get(t.Context(), testKey("same"), countingResponse(&times, "body")); string(got.Body) != "body" {
					t.Errorf("got %q, %v", got.Body, got.Err)
				}
			})
		}
		waiting, quit := context.WithCancel(t.Context())
		askers.Go(func() { // one that waits may go away as well
			if got := a.Get(waiting, testKey("same"), func(ctx context.Context) *Response { return &Response{Err: ctx.Err()} }); got.Err == nil {
				t.Errorf("got %q", got.Body)
			}
		})
		synctest.Wait()
		quit()
		synctest.Wait()
		leave()
		askers.Wait()
		if n := times.Load(); n != 1 {
			t.Errorf("it was answered %d times", n)
		}
	})
}

// TestCache_errorsNotCached: what is not to be kept is made anew for everybody, and
// a panic leaves nobody waiting.
func TestCache_errorsNotCached(t *testing.T) {
	t.Parallel()
	a := newTestCache(t)
	var times atomic.Int64
	for range 3 {
		a.Get(t.Context(), testKey("refused"), func(context.Context) *Response {
			times.Add(1)
			return &Response{Err: context.DeadlineExceeded}
		})
	}
	if n := times.Load(); n != 3 {
		t.Errorf("a refusal was made %d times", n)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		a.Get(t.Context(), testKey("panic"), func(context.Context) *Response { panic("a fault") })
	}()
	if got := a.Get(t.Context(), testKey("panic"), countingResponse(&times, "body")); string(got.Body) != "body" {
		t.Errorf("after a panic: %q", got.Body)
	}
}

// TestCache_memoryBounds: neither many answers nor large ones take more memory than
// they may, and what is made anew takes the place of what it was.
func TestCache_memoryBounds(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	a, err := NewCache(b.Market)
	testutil.Must(t, err)
	var times atomic.Int64
	for i := range maxEntries + 10 {
		a.Get(t.Context(), testKey(strconv.Itoa(i)), countingResponse(&times, "b"))
	}
	if a.entries.Len() != maxEntries || a.totalBytes != maxEntries {
		t.Errorf("%d answers of %d bytes are kept", a.entries.Len(), a.totalBytes)
	}
	large := strings.Repeat("b", maxEntryBytes)
	for i := range maxCacheBytes/maxEntryBytes + 10 {
		a.Get(t.Context(), testKey(fmt.Sprint("large", i)), countingResponse(&times, large))
	}
	counted := func() (total int) {
		for _, p := range a.entries.Values() {
			total += len(p.response.Body)
		}
		return total
	}
	if total := counted(); a.totalBytes > maxCacheBytes || a.totalBytes != total {
		t.Errorf("%d bytes are counted, %d kept", a.totalBytes, total)
	}
	times.Store(0)
	for range 2 {
		a.Get(t.Context(), testKey("too large"), countingResponse(&times, large+"b"))
	}
	if times.Load() != 2 {
		t.Error("an answer that is too large was kept")
	}
	whole := func(ctx context.Context) *Response {
		_, err := b.CountAgents(ctx, market.AgentQuery{})
		testutil.Must(t, err)
		return countingResponse(&times, "body")(ctx)
	}
	times.Store(0)
	for range 3 {
		a.Get(t.Context(), testKey("of all"), whole)
		b.registerAgent(t, "")
		a.Get(t.Context(), testKey("of all"), whole)
		a.Get(t.Context(), testKey("of all"), whole)
	}
	if total := counted(); a.totalBytes != total || times.Load() != 4 {
		t.Errorf("made %d times; %d bytes are counted, %d kept", times.Load(), a.totalBytes, total)
	}
}
