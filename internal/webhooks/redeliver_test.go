package webhooks

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestRedeliver(t *testing.T) {
	t.Parallel()

	t.Run("a delivered delivery is sent again with the same id", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, _ := b.addSubscriber(t, r.URL, "research")
		b.run(t)
		b.post(t, b.addAgent(t), "research")
		d := b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)[0]
		r.next(t)

		redelivered, err := b.redeliver(t, agent, d.ID)
		testutil.Must(t, err)
		testutil.Equal(t, "status", redelivered.Status, models.DeliveryPending)
		got := r.next(t)
		testutil.Equal(t, "delivery", got.header.Get("X-AgentMarket-Delivery"), d.ID)
		testutil.Equal(t, "attempt", got.header.Get("X-AgentMarket-Attempt"), "2")
		b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)
	})

	t.Run("a delivery that waits for a retry is sent once, now", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback(), retries: []time.Duration{time.Hour}})
		agent, _ := b.addSubscriber(t, r.URL, "research")
		event := b.post(t, b.addAgent(t), "research")
		b.matchEvent(t, event)
		d := b.deliveries(t, agent)[0]
		testutil.Must(t, b.recordOutcome(t.Context(), b.webhook(t, agent), &d, 1, attemptOutcome{failureReason: failureReason(500), status: 500}))
		testutil.Equal(t, "jobs in the retry queue", b.jobsInQueue(t, retryQueue), 1)
		b.run(t)

		_, err := b.redeliver(t, agent, d.ID)
		testutil.Must(t, err)
		d = b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)[0]
		testutil.Equal(t, "attempts", d.Attempts, 2)
		testutil.Equal(t, "requests", len(r.requests), 1)
	})

	t.Run("deliveries missed during a suspension can be redelivered", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, _ := b.addSubscriber(t, r.URL, "research")
		b.write(t, func(tx *database.Tx) error {
			return tx.Model(&models.Webhook{AgentID: agent}).Update("status", models.WebhookSuspended).Error
		})
		event := b.post(t, b.addAgent(t), "research")
		b.matchEvent(t, event)
		d := b.deliveries(t, agent)[0]
		testutil.Equal(t, "status", d.Status, models.DeliveryFailed)
		_, err := b.redeliver(t, agent, d.ID)
		testutil.Equal(t, "code while suspended", models.CodeOf(err), models.Conflict)

		b.subscribe(t, agent, r.URL)
		b.run(t)
		_, err = b.redeliver(t, agent, d.ID)
		testutil.Must(t, err)
		b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)
	})

	t.Run("a delivery of another agent is not found", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
		event := b.post(t, b.addAgent(t), "research")
		b.matchEvent(t, event)

		other, _ := b.addSubscriber(t, "https://other.example/hook", "research")
		id := b.deliveries(t, agent)[0].ID
		_, err := b.redeliver(t, other, id)
		testutil.Equal(t, "redeliver", models.CodeOf(err), models.NotFound)
		_, err = b.Delivery(t.Context(), other, id)
		testutil.Equal(t, "read", models.CodeOf(err), models.NotFound)
		_, err = b.Delivery(t.Context(), agent, id)
		testutil.Must(t, err)
	})
}

// TestRedeliver_alreadyQueued checks that a due delivery is not enqueued again.
func TestRedeliver_alreadyQueued(t *testing.T) {
	t.Parallel()
	b, worker, d := newPendingDelivery(t)
	for range 3 {
		b.write(t, func(tx *database.Tx) error {
			_, err := b.Redeliver(tx, worker, d.ID)
			return err
		})
	}
	testutil.Equal(t, "jobs", b.jobsInQueue(t, firstAttemptQueue)+b.jobsInQueue(t, retryQueue), 1)
}

// TestRedeliver_failingEndpoint checks that a redelivery to a failing endpoint goes to
// the retry queue.
func TestRedeliver_failingEndpoint(t *testing.T) {
	t.Parallel()
	b, worker, d := newPendingDelivery(t)
	testutil.Must(t, b.recordOutcome(t.Context(), b.webhook(t, worker), &d, 1, attemptOutcome{status: http.StatusInternalServerError, failureReason: failureReason(http.StatusInternalServerError)}))
	firstAttempts, retries := b.jobsInQueue(t, firstAttemptQueue), b.jobsInQueue(t, retryQueue)
	b.write(t, func(tx *database.Tx) error {
		_, err := b.Redeliver(tx, worker, d.ID)
		return err
	})
	testutil.Equal(t, "first attempts", b.jobsInQueue(t, firstAttemptQueue), firstAttempts)
	testutil.Equal(t, "retries", b.jobsInQueue(t, retryQueue), retries+1)
}

// TestRedeliverFailed_pages checks that failed deliveries of a time range are
// redelivered page by page, oldest first. Pending, delivered and expired deliveries
// and those of other agents do not change.
func TestRedeliverFailed_pages(t *testing.T) {
	t.Parallel()
	b := open(t, settings{retention: month})
	agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
	other, _ := b.addSubscriber(t, "https://other.example/hook", "research")
	poster := b.addAgent(t)
	const total = 9
	start := b.timestamp()
	for i := range total {
		b.matchEvent(t, b.post(t, poster, "research"))
		status := models.DeliveryFailed
		switch i {
		case 2:
			status = models.DeliveryPending
		case 5:
			status = models.DeliveryDelivered
		}
		for _, id := range []string{agent, other} {
			b.setStatus(t, b.deliveries(t, id)[0].ID, status)
		}
		b.clock.advance(time.Minute)
	}
	all := b.deliveries(t, agent) // newest first
	in := models.FailedDeliveryQuery{Since: start.Add(time.Minute), Until: new(all[0].CreatedAt), First: 2}
	var redelivered []string
	for more := true; more; in.After = redelivered[len(redelivered)-1] {
		var page []string
		var err error
		page, more, err = b.FailedDeliveries(t.Context(), agent, in)
		testutil.Must(t, err)
		b.write(t, func(tx *database.Tx) error {
			n, err := b.RedeliverFailed(tx, agent, page)
			testutil.Equal(t, "redelivered of a page", n, len(page))
			return err
		})
		redelivered = append(redelivered, page...)
	}
	want := []string{all[7].ID, all[5].ID, all[4].ID, all[2].ID, all[1].ID}
	testutil.Equal(t, "redelivered", len(redelivered), len(want))
	for i, id := range want {
		testutil.Equal(t, "redelivered in order", redelivered[i], id)
	}
	testutil.Equal(t, "still failed", b.count(t, agent, models.DeliveryFailed), 2)
	testutil.Equal(t, "failed of another agent", b.count(t, other, models.DeliveryFailed), total-2)
	testutil.Equal(t, "jobs in the retry queue", b.jobsInQueue(t, retryQueue), int64(len(want)))
	_, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: 1000, Until: new(all[8].CreatedAt)})
	testutil.Must(t, err)
	testutil.Equal(t, "failed outside the range", b.count(t, agent, models.DeliveryFailed), 2)

	b.clock.advance(month)
	ids, _, err := b.FailedDeliveries(t.Context(), agent, models.FailedDeliveryQuery{First: 1000})
	testutil.Must(t, err)
	testutil.Equal(t, "failed within the retention", len(ids), 0)
}

// TestRedeliverFailed_concurrent checks that each delivery is sent once when many
// callers redeliver it and each job runs twice.
func TestRedeliverFailed_concurrent(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
	agent, _ := b.addSubscriber(t, r.URL, "research")
	poster := b.addAgent(t)
	const failed, callers = 30, 8
	for range failed {
		b.matchEvent(t, b.post(t, poster, "research"))
	}
	b.write(t, func(tx *database.Tx) error {
		return tx.Exec("UPDATE deliveries SET status = 'failed', attempts_left = 0").Error
	})
	var total atomic.Int64
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			n, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: failed})
			total.Add(int64(n))
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	testutil.Equal(t, "redelivered by all callers", total.Load(), failed)
	testutil.Equal(t, "jobs", b.jobsInQueue(t, retryQueue), int64(failed))
	for _, d := range b.deliveries(t, agent) {
		args := DeliverArgs{DeliveryID: d.ID, Attempt: 1}
		testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
		testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
	}
	b.run(t)
	testutil.Eventually(t, "all jobs to complete", func() bool { return b.unfinishedJobs(t) == 0 })
	testutil.Equal(t, "delivered", b.count(t, agent, models.DeliveryDelivered), failed)
	testutil.Equal(t, "requests", len(r.requests), failed)
}

func (b *bundle) redeliver(t *testing.T, agentID, id string) (d models.Delivery, err error) {
	t.Helper()
	err = b.db.Write(t.Context(), func(tx *database.Tx) (err error) {
		d, err = b.Redeliver(tx, agentID, id)
		return err
	})
	return d, err
}

// redeliverFailed redelivers a page of failed deliveries, as the market does.
func (b *bundle) redeliverFailed(t *testing.T, agentID string, in models.FailedDeliveryQuery) (n int, err error) {
	t.Helper()
	ids, _, err := b.FailedDeliveries(t.Context(), agentID, in)
	if err != nil {
		return 0, err
	}
	err = b.db.Write(t.Context(), func(tx *database.Tx) (err error) {
		n, err = b.RedeliverFailed(tx, agentID, ids)
		return err
	})
	return n, err
}

// unfinishedJobs counts the jobs that are not completed.
func (b *bundle) unfinishedJobs(t *testing.T) int64 {
	t.Helper()
	var n int64
	testutil.Must(t, b.db.Read(t.Context()).Table("river_job").Where("state <> 'completed'").Count(&n).Error)
	return n
}
