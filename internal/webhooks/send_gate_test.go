package webhooks

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"agentmarket.space/server/internal/test/testutil"
)

// TestSendGate checks that one request to fast receivers runs at a time, for fastResponse at
// most, and that requests to slow receivers do not wait.
func TestSendGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newSendGate()
		enter := func(agentID string) (leave func(), waited time.Duration) {
			t.Helper()
			start := time.Now()
			leave, err := g.enter(t.Context(), agentID)
			testutil.Must(t, err)
			return leave, time.Since(start)
		}
		leave, _ := enter("a")
		leave()
		leave, waited := enter("b")
		testutil.Equal(t, "wait after a recorded request", waited, 0)
		late, waited := enter("c")
		testutil.Equal(t, "wait for a request that is not recorded", waited, fastResponse)
		leave() // its place is already free
		late()
		g.recordLatency("slow", fastResponse+1)
		busy, _ := enter("d")
		_, waited = enter("slow")
		testutil.Equal(t, "wait for a slow receiver", waited, 0)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := g.enter(ctx, "e")
		testutil.Equal(t, "error of a cancelled request", err, context.Canceled)
		busy()
	})
}

// TestSendGate_manySlow checks that the gate remembers slow receivers up to its limit, and
// forgets one and not all of them above it.
func TestSendGate_manySlow(t *testing.T) {
	t.Parallel()
	g := newSendGate()
	for i := range maxSlowReceivers + 10 {
		g.recordLatency(strconv.Itoa(i), time.Second)
	}
	testutil.Equal(t, "slow receivers", len(g.slow), maxSlowReceivers)
}
