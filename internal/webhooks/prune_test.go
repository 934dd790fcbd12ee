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

// TestPrune takes deliveries away a month after they were made, with their
// attempts, unless they wait for one.
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
	waiting := old[1]
	b.setStatus(t, waiting.ID, models.DeliveryPending)
	testutil.Must(t, b.Prune(t.Context()))
	testutil.Equal(t, "deliveries of today", len(b.deliveries(t, agent)), 3)

	b.clock.advance(month)
	b.run(t)
	b.post(t, poster, "research")
	b.eventually(t, "the new one to be delivered", func() bool {
		all := b.deliveries(t, agent)
		return len(all) == 4 && all[0].Status == models.DeliveryDelivered
	})
	testutil.Must(t, b.Prune(t.Context()))
	left := b.deliveries(t, agent)
	testutil.Equal(t, "deliveries left", len(left), 2)
	testutil.Equal(t, "the one that waits", left[1].ID, waiting.ID)
	testutil.Equal(t, "attempts of one that went", len(b.attempts(t, old[0].ID)), 0)
	testutil.Equal(t, "attempts of one that waits", len(b.attempts(t, waiting.ID)), 1)
	needed, err := b.OldestNeeded(t.Context())
	testutil.Must(t, err)
	testutil.Equal(t, "the first event that is needed", needed, waiting.EventID)

	testutil.Must(t, b.deliver(t.Context(), DeliverArgs{DeliveryID: old[0].ID, Attempt: 2}, retryQueue)) // a job that was left over
	_, err = b.redeliver(t, agent, waiting.ID)
	testutil.Equal(t, "sending an old one again", models.CodeOf(err), models.NotFound)
	b.setStatus(t, waiting.ID, models.DeliveryFailed)
	testutil.Must(t, b.Prune(t.Context()))
	testutil.Equal(t, "deliveries left", len(b.deliveries(t, agent)), 1)
}

// TestPrune_manyPages goes on from page to page, past those that wait, by several
// processes at once.
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
		t.Errorf("%d deliveries are left", len(left))
	}
}

// TestPrune_keepsForever keeps everything.
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

// TestOldestNeeded: an event that is still to be matched is needed, whatever else is.
func TestOldestNeeded(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	needed, err := b.OldestNeeded(t.Context())
	testutil.Must(t, err)
	testutil.Equal(t, "needed of an empty store", needed, int64(math.MaxInt64))
	b.addSubscriber(t, "https://bot.example/hook", "research")
	poster := b.addAgent(t)
	early, late := b.post(t, poster, "research"), b.post(t, poster, "research")
	b.matchEvent(t, late)
	needed, err = b.OldestNeeded(t.Context())
	testutil.Must(t, err)
	testutil.Equal(t, "needed", needed, early.ID)
}

func (b *bundle) setStatus(t *testing.T, id string, status models.DeliveryStatus) {
	t.Helper()
	b.write(t, func(tx *database.Tx) error {
		return tx.Model(&models.Delivery{}).Where("id = ?", id).Update("status", status).Error
	})
}
