package webhooks

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestStop_interruptedAttemptIsRepeated checks that an attempt canceled by Stop is
// not a failure and is repeated with the same number after the next Start.
func TestStop_interruptedAttemptIsRepeated(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	release := make(chan struct{})
	r := newReceiver(t, func(_ http.ResponseWriter, req *http.Request) {
		if n.Add(1) == 1 {
			select {
			case <-release:
			case <-req.Context().Done():
			}
		}
	})
	t.Cleanup(func() { close(release) })
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
	worker, _ := b.addSubscriber(t, r.URL, "research")
	b.run(t)
	b.post(t, b.addAgent(t), "research")
	r.next(t)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	testutil.Must(t, b.Stop(ctx))
	testutil.Equal(t, "recorded attempts", b.deliveries(t, worker)[0].Attempts, 0)

	b.run(t)
	d := b.waitDeliveries(t, worker, models.DeliveryDelivered, 1)[0]
	testutil.Equal(t, "attempts", d.Attempts, 1)
	testutil.Equal(t, "attempt header", r.next(t).header.Get("X-AgentMarket-Attempt"), "1")
}
