package webhooks

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"agentmarket.space/server/internal/test/testutil"
)

// TestEndpointLimiter checks that one slot and half of the waiting places are
// reserved for requests of normal priority.
func TestEndpointLimiter(t *testing.T) {
	t.Parallel()
	l := newEndpointLimiter(time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()                  // acquire does not wait
	held := map[bool][]slot{} // by priority
	acquire := func(lowPriority bool) bool {
		s, _, ok := l.acquire(ctx, "a", lowPriority)
		if ok {
			held[lowPriority] = append(held[lowPriority], s)
		}
		return ok
	}
	release := func(lowPriority bool) {
		l.release(held[lowPriority][0])
		held[lowPriority] = held[lowPriority][1:]
	}
	for i := range maxLowPriority + 1 {
		testutil.Equal(t, fmt.Sprintf("low-priority request %d", i+1), acquire(true), i < maxLowPriority)
	}
	testutil.Equal(t, "normal request", acquire(false), true)
	testutil.Equal(t, "another normal request", acquire(false), false)
	release(true)
	testutil.Equal(t, "normal request in a slot of low priority", acquire(false), true)
	for range 2 {
		release(true)
		release(false)
	}
	testutil.Equal(t, "agents with requests", len(l.endpoints)+l.slots.Keys()+l.lowPrioritySlots.Keys(), 0)

	enter := func(lowPriority bool) bool {
		_, ok := l.enter("a", lowPriority)
		return ok
	}

	for range maxLowPriority + maxWaiting/2 {
		testutil.Equal(t, "low-priority request may wait", enter(true), true)
	}
	testutil.Equal(t, "one more low-priority request may wait", enter(true), false)
	testutil.Equal(t, "crowded", l.isCrowded("a"), false)
	testutil.Equal(t, "normal request may wait", enter(false), true)
	testutil.Equal(t, "crowded", l.isCrowded("a"), true)
}

// TestEndpointLimiter_detectsSlow checks that running requests count towards the
// penalty, that fast responses do not reduce it, and that it decays over time.
func TestEndpointLimiter_detectsSlow(t *testing.T) {
	t.Parallel()
	clock := &clock{fixed: time.Unix(1_700_000_000, 0)}
	l := newEndpointLimiter(clock.now)
	acquire := func() slot {
		s, _, ok := l.acquire(t.Context(), "a", false)
		testutil.Equal(t, "slot", ok, true)
		return s
	}
	first, second := acquire(), acquire()
	clock.advance(expectedLatency + slowThreshold/2 - 1)
	testutil.Equal(t, "slow just below the threshold", l.isSlow("a"), false)
	clock.advance(1)
	testutil.Equal(t, "slow at the threshold", l.isSlow("a"), true)
	l.release(first)
	testutil.Equal(t, "slow after one request has ended", l.isSlow("a"), true)
	l.release(second)
	testutil.Equal(t, "slow after both have ended", l.isSlow("a"), true)
	for range 100 {
		l.release(acquire())
	}
	testutil.Equal(t, "slow after a hundred fast responses", l.isSlow("a"), true)
	clock.advance(penaltyDecay)
	testutil.Equal(t, "slow after the penalty has decayed by a nanosecond", l.isSlow("a"), false)
	testutil.Equal(t, "another agent is slow", l.isSlow("b"), false)

	hanging := acquire()
	clock.advance(24 * time.Hour)
	l.release(hanging)
	testutil.Equal(t, "penalty after a day", l.penalties["a"].amount, maxPenalty)
	clock.advance(penaltyDecay*(maxPenalty-slowThreshold) - penaltyDecay)
	testutil.Equal(t, "slow just before the penalty reaches the threshold", l.isSlow("a"), true)
	clock.advance(2 * penaltyDecay)
	testutil.Equal(t, "slow just after", l.isSlow("a"), false)
}

// TestEndpointLimiter_restart checks that the time a request waits for the server is not
// taken for the latency of the endpoint.
func TestEndpointLimiter_restart(t *testing.T) {
	t.Parallel()
	clock := &clock{fixed: time.Unix(1_700_000_000, 0)}
	l := newEndpointLimiter(clock.now)
	for range 100 {
		s, _, ok := l.acquire(t.Context(), "a", false)
		testutil.Equal(t, "slot", ok, true)
		clock.advance(2 * expectedLatency)
		l.restart(&s)
		l.release(s)
	}
	testutil.Equal(t, "slow", l.isSlow("a"), false)
	testutil.Equal(t, "running requests", l.endpoints["a"] == nil, true)
}

// TestEndpointLimiter_prunesPenalties checks that expired penalties are removed.
func TestEndpointLimiter_prunesPenalties(t *testing.T) {
	t.Parallel()
	clock := &clock{fixed: time.Unix(1_700_000_000, 0)}
	l := newEndpointLimiter(clock.now)
	for i := range 10 * minPenaltiesToPrune {
		clock.advance(time.Second)
		l.addPenalty(strconv.Itoa(i), time.Second)
	}
	if n := len(l.penalties); n > 2*minPenaltiesToPrune {
		t.Errorf("%d penalties are stored, of which only %d have not expired", n, penaltyDecay)
	}
}

// TestEndpointLimiter_slowDoesNotWait checks that acquire does not wait for a slow
// agent and returns the penalty as the stalled time.
func TestEndpointLimiter_slowDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newEndpointLimiter(time.Now)
		for range maxPerEndpoint {
			_, _, ok := l.acquire(t.Context(), "a", false)
			testutil.Equal(t, "slot", ok, true)
		}
		start := time.Now()
		_, _, ok := l.acquire(t.Context(), "a", false)
		testutil.Equal(t, "slot", ok, false)
		testutil.Equal(t, "waited", time.Since(start), slotWaitTimeout)
		<-time.After(20 * time.Second)
		l.endpoints["a"].lastProgress = time.Now() // as after a response
		start = time.Now()
		_, stalled, ok := l.acquire(t.Context(), "a", false)
		testutil.Equal(t, "slot", ok, false)
		testutil.Equal(t, "waited", time.Since(start), 0)
		testutil.Equal(t, "stalled for", stalled, maxPenalty)
	})
}
