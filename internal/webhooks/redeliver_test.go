package webhooks

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestRedeliverFailed_pages: of what was given up, a page at a time, oldest first,
// that of the range; what is pending or delivered, another's or too old is left.
func TestRedeliverFailed_pages(t *testing.T) {
	t.Parallel()
	b := open(t, settings{retention: month})
	agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
	other, _ := b.addSubscriber(t, "https://other.example/hook", "research")
	poster := b.addAgent(t)
	const many = 9
	began := b.timestamp()
	for i := range many {
		b.matchEvent(t, b.post(t, poster, "research"))
		status := models.DeliveryFailed
		switch i {
		case 2:
			status = models.DeliveryPending
		case 5:
			status = models.DeliveryDelivered
		}
		for _, of := range []string{agent, other} {
			b.setStatus(t, b.deliveries(t, of)[0].ID, status)
		}
		b.clock.advance(time.Minute)
	}
	all := b.deliveries(t, agent) // newest first
	in := models.FailedDeliveryQuery{Since: began.Add(time.Minute), Until: new(all[0].CreatedAt), First: 2}
	var sent []string
	for more := true; more; in.After = sent[len(sent)-1] {
		var page []string
		var err error
		page, more, err = b.FailedDeliveries(t.Context(), agent, in)
		testutil.Must(t, err)
		b.write(t, func(tx *database.Tx) error {
			n, err := b.RedeliverFailed(tx, agent, page)
			testutil.Equal(t, "sent of a page", n, len(page))
			return err
		})
		sent = append(sent, page...)
	}
	want := []string{all[7].ID, all[5].ID, all[4].ID, all[2].ID, all[1].ID}
	testutil.Equal(t, "redelivered", len(sent), len(want))
	for i, id := range want {
		testutil.Equal(t, "redelivered in order", sent[i], id)
	}
	testutil.Equal(t, "still failed", b.count(t, agent, models.DeliveryFailed), 2)
	testutil.Equal(t, "failed of another", b.count(t, other, models.DeliveryFailed), many-2)
	testutil.Equal(t, "jobs in the retry queue", b.jobsInQueue(t, retryQueue), int64(len(want)))
	_, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: 1000, Until: new(all[8].CreatedAt)})
	testutil.Must(t, err)
	testutil.Equal(t, "failed and not in the range", b.count(t, agent, models.DeliveryFailed), 2)

	b.clock.advance(month)
	ids, _, err := b.FailedDeliveries(t.Context(), agent, models.FailedDeliveryQuery{First: 1000})
	testutil.Must(t, err)
	testutil.Equal(t, "failed and not too old", len(ids), 0)
}

// TestRedeliverFailed_concurrent: asked for by many at once, and worked twice as after
// a crash, each is sent once.
func TestRedeliverFailed_concurrent(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
	agent, _ := b.addSubscriber(t, r.URL, "research")
	poster := b.addAgent(t)
	const many, callers = 30, 8
	for range many {
		b.matchEvent(t, b.post(t, poster, "research"))
	}
	b.write(t, func(tx *database.Tx) error {
		return tx.Exec("UPDATE deliveries SET status = 'failed', tries_left = 0").Error
	})
	var total atomic.Int64
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			n, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: many})
			total.Add(int64(n))
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	testutil.Equal(t, "redelivered by all", total.Load(), many)
	testutil.Equal(t, "jobs", b.jobsInQueue(t, retryQueue), int64(many))
	for _, d := range b.deliveries(t, agent) {
		args := DeliverArgs{DeliveryID: d.ID, Attempt: 1}
		testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
		testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
	}
	b.run(t)
	b.eventually(t, "every job to be done", func() bool { return b.unfinishedJobs(t) == 0 })
	testutil.Equal(t, "delivered", b.count(t, agent, models.DeliveryDelivered), many)
	testutil.Equal(t, "requests", len(r.requests), many)
}

// unfinishedJobs counts the jobs that are not done.
func (b *bundle) unfinishedJobs(t *testing.T) int64 {
	t.Helper()
	var n int64
	testutil.Must(t, b.db.Read(t.Context()).Table("river_job").Where("state <> 'completed'").Count(&n).Error)
	return n
}

// redeliverFailed has a page sent again, as the market does.
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
