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
)

// answersOf returns a store of answers about a fresh market.
func answersOf(t *testing.T) *Answers {
	t.Helper()
	a, err := NewAnswers(markettest.New(t).Market)
	must(t, err)
	return a
}

func question(text string) Question { return Ask(context.Background(), text, true) }

// made returns what makes an answer, and counts how often it does.
func made(times *atomic.Int64, body string) func(context.Context) *Answer {
	return func(context.Context) *Answer {
		times.Add(1)
		return &Answer{Body: []byte(body), Keep: true}
	}
}

// TestAnswers_once: who asks while an answer is being made gets that one.
func TestAnswers_once(t *testing.T) {
	t.Parallel()
	a := answersOf(t)
	synctest.Test(t, func(t *testing.T) {
		var times atomic.Int64
		begun, finish := make(chan struct{}), make(chan struct{})
		var askers sync.WaitGroup
		ask := func() {
			if got := a.Get(t.Context(), question("same"), func(ctx context.Context) *Answer {
				close(begun)
				<-finish
				return made(&times, "body")(ctx)
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

// TestAnswers_gone: a caller that goes away takes nobody along: the next one
// makes the answer, for all that wait.
func TestAnswers_gone(t *testing.T) {
	t.Parallel()
	a := answersOf(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		var askers sync.WaitGroup
		begun := make(chan struct{})
		askers.Go(func() {
			a.Get(ctx, question("same"), func(ctx context.Context) *Answer {
				close(begun)
				<-ctx.Done()
				return &Answer{Err: ctx.Err()}
			})
		})
		<-begun
		var times atomic.Int64
		for range 20 {
			askers.Go(func() {
				if got := a.Get(t.Context(), question("same"), made(&times, "body")); string(got.Body) != "body" {
					t.Errorf("got %q, %v", got.Body, got.Err)
				}
			})
		}
		waiting, quit := context.WithCancel(t.Context())
		askers.Go(func() { // one that waits may go away as well
			if got := a.Get(waiting, question("same"), func(ctx context.Context) *Answer { return &Answer{Err: ctx.Err()} }); got.Err == nil {
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

// TestAnswers_refusals: what is not to be kept is made anew for everybody, and
// a panic leaves nobody waiting.
func TestAnswers_refusals(t *testing.T) {
	t.Parallel()
	a := answersOf(t)
	var times atomic.Int64
	for range 3 {
		a.Get(t.Context(), question("refused"), func(context.Context) *Answer {
			times.Add(1)
			return &Answer{Err: context.DeadlineExceeded}
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
		a.Get(t.Context(), question("panic"), func(context.Context) *Answer { panic("a fault") })
	}()
	if got := a.Get(t.Context(), question("panic"), made(&times, "body")); string(got.Body) != "body" {
		t.Errorf("after a panic: %q", got.Body)
	}
}

// TestAnswers_bounds: neither many answers nor large ones take more memory than
// they may, and what is made anew takes the place of what it was.
func TestAnswers_bounds(t *testing.T) {
	t.Parallel()
	b := open(t)
	a, err := NewAnswers(b.Market)
	must(t, err)
	var times atomic.Int64
	for i := range maxAnswers + 10 {
		a.Get(t.Context(), question(strconv.Itoa(i)), made(&times, "b"))
	}
	if a.kept.Len() != maxAnswers || a.bytes != maxAnswers {
		t.Errorf("%d answers of %d bytes are kept", a.kept.Len(), a.bytes)
	}
	large := strings.Repeat("b", maxAnswerBytes)
	for i := range maxBytes/maxAnswerBytes + 10 {
		a.Get(t.Context(), question(fmt.Sprint("large", i)), made(&times, large))
	}
	counted := func() (total int) {
		for _, p := range a.kept.Values() {
			total += len(p.answer.Body)
		}
		return total
	}
	if total := counted(); a.bytes > maxBytes || a.bytes != total {
		t.Errorf("%d bytes are counted, %d kept", a.bytes, total)
	}
	times.Store(0)
	for range 2 {
		a.Get(t.Context(), question("too large"), made(&times, large+"b"))
	}
	if times.Load() != 2 {
		t.Error("an answer that is too large was kept")
	}
	whole := func(ctx context.Context) *Answer {
		_, err := b.CountAgents(ctx, market.AgentQuery{})
		must(t, err)
		return made(&times, "body")(ctx)
	}
	times.Store(0)
	for range 3 {
		a.Get(t.Context(), question("of all"), whole)
		b.register(t, "")
		a.Get(t.Context(), question("of all"), whole)
		a.Get(t.Context(), question("of all"), whole)
	}
	if total := counted(); a.bytes != total || times.Load() != 4 {
		t.Errorf("made %d times; %d bytes are counted, %d kept", times.Load(), a.bytes, total)
	}
}
