package keyedsem_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"agentmarket.space/server/internal/keyedsem"
	"agentmarket.space/server/internal/test/testutil"
)

// enter returns a ticket for key. The key must have room.
func enter(t *testing.T, s *keyedsem.Semaphore, key string) *keyedsem.Ticket {
	t.Helper()
	ticket, ok := s.Enter(key)
	if !ok {
		t.Fatalf("no ticket for key %q", key)
	}
	return ticket
}

func canceledContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestSemaphore_limitsEachKey(t *testing.T) {
	t.Parallel()
	s := keyedsem.New(2, 0)
	ctx := canceledContext(t) // Acquire does not wait
	first, second, third := enter(t, s, "a"), enter(t, s, "a"), enter(t, s, "a")
	testutil.Equal(t, "first slot", first.Acquire(ctx), true)
	testutil.Equal(t, "second slot", second.Acquire(ctx), true)
	testutil.Equal(t, "third slot", third.Acquire(ctx), false)
	other := enter(t, s, "b")
	testutil.Equal(t, "slot of another key", other.Acquire(ctx), true)

	first.Release()
	testutil.Equal(t, "slot after a release", third.Acquire(ctx), true)
	testutil.Equal(t, "tickets", s.Tickets("a"), 2)
	for _, ticket := range []*keyedsem.Ticket{second, third, other} {
		ticket.Release()
	}
	testutil.Equal(t, "tickets", s.Tickets("a"), 0)
	testutil.Equal(t, "keys", s.Keys(), 0)
}

func TestSemaphore_limitsTickets(t *testing.T) {
	t.Parallel()
	s := keyedsem.New(1, 2)
	holder, waiter := enter(t, s, "a"), enter(t, s, "a")
	testutil.Equal(t, "slot", holder.Acquire(t.Context()), true)
	_, ok := s.Enter("a")
	testutil.Equal(t, "third ticket", ok, false)
	enter(t, s, "b").Release()

	waiter.Release() // without a slot
	enter(t, s, "a").Release()
	holder.Release()
	testutil.Equal(t, "keys", s.Keys(), 0)
}

func TestTicket_Acquire_waits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := keyedsem.New(1, 0)
		holder, waiter := enter(t, s, "a"), enter(t, s, "a")
		testutil.Equal(t, "slot", holder.Acquire(t.Context()), true)
		acquired := make(chan bool, 1)
		go func() { acquired <- waiter.Acquire(t.Context()) }()
		synctest.Wait()
		testutil.Equal(t, "results before the release", len(acquired), 0)
		holder.Release()
		testutil.Equal(t, "slot", <-acquired, true)
		waiter.Release()
	})
}

func TestTicket_Acquire_contextDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := keyedsem.New(1, 0)
		holder, waiter := enter(t, s, "a"), enter(t, s, "a")
		testutil.Equal(t, "slot", holder.Acquire(t.Context()), true)
		ctx, cancel := context.WithCancel(t.Context())
		acquired := make(chan bool, 1)
		go func() { acquired <- waiter.Acquire(ctx) }()
		synctest.Wait()
		cancel()
		testutil.Equal(t, "slot", <-acquired, false)
		waiter.Release()
		testutil.Equal(t, "tickets", s.Tickets("a"), 1)
		holder.Release()
	})
}

func TestSemaphore_concurrent(t *testing.T) {
	t.Parallel()
	const slots, keys, callers = 3, 4, 200
	s := keyedsem.New(slots, 0)
	var active [keys]atomic.Int32
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			key := i % keys
			ticket, _ := s.Enter(strconv.Itoa(key))
			defer ticket.Release()
			if !ticket.Acquire(t.Context()) {
				t.Error("no slot")
				return
			}
			if n := active[key].Add(1); n > slots {
				t.Errorf("%d slots of key %d are in use, want at most %d", n, key, slots)
			}
			active[key].Add(-1)
		})
	}
	group.Wait()
	testutil.Equal(t, "keys", s.Keys(), 0)
}
