package webhooks

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

const month = 30 * 24 * time.Hour

// TestPrune checks that deliveries are deleted with their attempts after a month,
// except pending ones.
func TestPrune(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, respondWith(http.StatusOK))
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback(), retention: month})
	agent, _ := b.addSubscriber(t, r.URL, "research")
	poster := b.addAgent(t)
	b.run(t)
	for range 3 {
		b.post(t, poster, "research")
	}
	old := b.waitDeliveries(t, agent, models.DeliveryDelivered, 3)
	testutil.Must(t, b.Stop(t.Context()))
	pending := old[1]
	b.setStatus(t, pending.ID, models.DeliveryPending)
	testutil.Must(t, b.Prune(t.Context()))
	testutil.Equal(t, "deliveries of today", len(b.deliveries(t, agent)), 3)

	b.clock.advance(month)
	b.run(t)
	b.post(t, poster, "research")
	testutil.Eventually(t, "the new delivery to be delivered", func() bool {
		all := b.deliveries(t, agent)
		return len(all) == 4 && all[0].Status == models.DeliveryDelivered
	})
	testutil.Must(t, b.Prune(t.Context()))
	left := b.deliveries(t, agent)
	testutil.Equal(t, "deliveries left", len(left), 2)
	testutil.Equal(t, "pending delivery", left[1].ID, pending.ID)
	testutil.Equal(t, "attempts of a deleted delivery", len(b.attempts(t, old[0].ID)), 0)
	testutil.Equal(t, "attempts of the pending delivery", len(b.attempts(t, pending.ID)), 1)
	needed, err := b.OldestNeeded(t.Context())
	testutil.Must(t, err)
	testutil.Equal(t, "oldest needed event", needed, pending.EventID)

	testutil.Must(t, b.deliver(t.Context(), DeliverArgs{DeliveryID: old[0].ID, Attempt: 2}, retryQueue)) // job of a deleted delivery
	_, err = b.redeliver(t, agent, pending.ID)
	testutil.Equal(t, "code of redelivering an expired delivery", models.CodeOf(err), models.NotFound)
	b.setStatus(t, pending.ID, models.DeliveryFailed)
	testutil.Must(t, b.Prune(t.Context()))
	testutil.Equal(t, "deliveries left", len(b.deliveries(t, agent)), 1)
}

// TestPrune_manyPages checks that concurrent calls of Prune process all pages and
// skip pending deliveries.
func TestPrune_manyPages(t *testing.T) {
	t.Parallel()
	b := open(t, settings{retention: month})
	const agents = 2*prunePageSize + 30
	var first string
	for i := range agents {
		agent, _ := b.addSubscriber(t, fmt.Sprintf("https://bot%d.example/hook", i), "research")
		if first == "" {
			first = agent
		}
	}
	event := b.post(t, b.addAgent(t), "research")
	b.matchEvent(t, event)
	b.write(t, func(tx *database.Tx) error {
		return tx.Model(&models.Delivery{}).Where("agent_id <> ?", first).Update("status", models.DeliveryFailed).Error
	})
	b.clock.advance(2 * month)
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if err := b.Prune(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var left []models.Delivery
	testutil.Must(t, b.db.Read(t.Context()).Find(&left).Error)
	if len(left) != 1 || left[0].AgentID != first {
		t.Errorf("%d deliveries are left, want the pending one", len(left))
	}
}

// TestPrune_keepsForever checks that without a retention nothing is deleted.
func TestPrune_keepsForever(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
	b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
	b.setStatus(t, b.deliveries(t, agent)[0].ID, models.DeliveryFailed)
	b.clock.advance(100 * month)
	testutil.Must(t, b.Prune(t.Context()))
	testutil.Equal(t, "deliveries", len(b.deliveries(t, agent)), 1)
}

// TestOldestNeeded checks that the event of a queued match job is needed.
func TestOldestNeeded(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	needed, err := b.OldestNeeded(t.Context())
	testutil.Must(t, err)
	testutil.Equal(t, "oldest needed event of an empty database", needed, int64(math.MaxInt64))
	b.addSubscriber(t, "https://bot.example/hook", "research")
	poster := b.addAgent(t)
	first, second := b.post(t, poster, "research"), b.post(t, poster, "research")
	b.matchEvent(t, second)
	needed, err = b.OldestNeeded(t.Context())
	testutil.Must(t, err)
	testutil.Equal(t, "oldest needed event", needed, first.ID)
}

func (b *bundle) setStatus(t *testing.T, id string, status models.DeliveryStatus) {
	t.Helper()
	b.write(t, func(tx *database.Tx) error {
		return tx.Model(&models.Delivery{}).Where("id = ?", id).Update("status", status).Error
	})
}
