package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// newHangingReceiver returns a receiver that does not respond before the test ends.
func newHangingReceiver(t *testing.T) *receiver {
	t.Helper()
	return newSelectiveReceiver(t, func(string) bool { return false })
}

// newHalfHangingReceiver returns a receiver that responds only to the first request
// of each path.
func newHalfHangingReceiver(t *testing.T) *receiver {
	t.Helper()
	var seen sync.Map
	return newSelectiveReceiver(t, func(path string) bool {
		_, loaded := seen.LoadOrStore(path, true)
		return !loaded
	})
}

// newSelectiveReceiver returns a receiver that hangs unless responds returns true.
func newSelectiveReceiver(t *testing.T, responds func(path string) bool) *receiver {
	t.Helper()
	release := make(chan struct{})
	r := newReceiver(t, func(w http.ResponseWriter, req *http.Request) {
		if responds(req.URL.Path) {
			return
		}
		select {
		case <-release:
		case <-req.Context().Done():
		}
		w.WriteHeader(http.StatusInternalServerError)
	})
	t.Cleanup(func() { close(release) })
	return r
}

// fairnessBundle is a bundle with a healthy endpoint and one that hangs for longer
// than any test waits.
type fairnessBundle struct {
	*bundle
	hanging, healthy *receiver
	healthyID        string
	poster           string
}

func newFairnessBundle(t *testing.T) *fairnessBundle {
	t.Helper()
	b := &fairnessBundle{hanging: newHangingReceiver(t), healthy: newReceiver(t, nil)}
	b.bundle = open(t, settings{roots: certPool(b.hanging, b.healthy), allowNetworks: loopback(), timeout: 10 * testutil.Timeout})
	b.healthyID, _ = b.addSubscriber(t, b.healthy.URL, "healthy")
	b.poster = b.addAgent(t)
	return b
}

// stopNow cancels the hanging requests. Canceled requests are not failures.
func (b *fairnessBundle) stopNow(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	testutil.Must(t, b.Stop(ctx))
}

// wantHealthyServed posts a task and waits until the healthy endpoint receives it.
func (b *fairnessBundle) wantHealthyServed(t *testing.T) {
	t.Helper()
	start := time.Now()
	b.post(t, b.poster, "healthy")
	b.healthy.next(t)
	t.Logf("delivered after %s", time.Since(start).Round(time.Millisecond))
}

// TestFairness_failingEndpoints checks that failing endpoints, more than there are workers
// for, do not delay deliveries to a healthy endpoint.
func TestFairness_failingEndpoints(t *testing.T) {
	t.Parallel()
	b := newFairnessBundle(t)
	const endpoints = maxFirstAttemptWorkers/maxPerEndpoint + 6
	for i := range endpoints {
		b.addSubscriber(t, fmt.Sprintf("%s/%d", b.hanging.URL, i), "hanging")
	}
	b.write(t, func(tx *database.Tx) error {
		return tx.Model(&models.Webhook{}).Where("agent_id <> ?", b.healthyID).Update("failing_since", b.timestamp()).Error
	})
	for range maxPerEndpoint {
		b.post(t, b.poster, "hanging")
	}
	b.run(t)
	for range maxRetryWorkers {
		b.hanging.next(t)
	}
	b.wantHealthyServed(t)
	b.stopNow(t)
}

// TestFairness_hangingBacklog checks that a long backlog for a hanging endpoint does not
// delay deliveries to a healthy one.
func TestFairness_hangingBacklog(t *testing.T) {
	t.Parallel()
	b := newFairnessBundle(t)
	b.addSubscriber(t, b.hanging.URL, "hanging")
	for range 2 * maxFirstAttemptWorkers {
		b.matchEvent(t, b.post(t, b.poster, "hanging"))
	}
	b.write(t, func(tx *database.Tx) error { return tx.Exec("DELETE FROM river_job WHERE queue = ?", matchQueue).Error })
	b.run(t)
	for range maxPerEndpoint {
		b.hanging.next(t)
	}
	b.wantHealthyServed(t)
	b.stopNow(t)
}

// TestFairness_bulkRedelivery checks that bulk redeliveries to a hanging endpoint delay
// neither first attempts to other endpoints nor those to the same endpoint.
func TestFairness_bulkRedelivery(t *testing.T) {
	t.Parallel()
	b := newFairnessBundle(t)
	agent, _ := b.addSubscriber(t, b.hanging.URL, "hanging")
	for range maxRetryWorkers + maxPerEndpoint {
		b.matchEvent(t, b.post(t, b.poster, "hanging"))
	}
	b.write(t, func(tx *database.Tx) error {
		if err := tx.Exec("DELETE FROM river_job").Error; err != nil {
			return err
		}
		return tx.Exec("UPDATE deliveries SET status = 'failed'").Error
	})
	n, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: 1000})
	testutil.Must(t, err)
	testutil.Equal(t, "redelivered", n, maxRetryWorkers+maxPerEndpoint)
	b.run(t)
	for range maxLowPriority {
		b.hanging.next(t)
	}
	b.wantHealthyServed(t)
	event := b.post(t, b.poster, "hanging")
	got := b.hanging.next(t)
	var d models.Delivery
	testutil.Must(t, b.db.Read(t.Context()).Take(&d, "event_id = ?", event.ID).Error)
	testutil.Equal(t, "next request to the hanging endpoint", got.header.Get("X-AgentMarket-Delivery"), d.ID)
	b.stopNow(t)
}

// TestFairness_intermittentlyHanging checks endpoints that respond to one request and
// hang on the next, so they never count as failing. There are enough of them to
// occupy all first-attempt workers. Once they are slow, they do not delay deliveries
// to a healthy endpoint.
func TestFairness_intermittentlyHanging(t *testing.T) {
	t.Parallel()
	b := newFairnessBundle(t)
	const endpoints = maxFirstAttemptWorkers/maxLowPriority + 1
	half := newHalfHangingReceiver(t)
	b.client = newClient(certPool(half, b.healthy), loopback())
	for i := range endpoints {
		b.addSubscriber(t, fmt.Sprintf("%s/%d", half.URL, i), "hanging")
	}
	b.run(t)
	b.post(t, b.poster, "hanging")
	for range endpoints {
		half.next(t)
	}
	testutil.Eventually(t, "one response from each endpoint", func() bool {
		var delivered int64
		testutil.Must(t, b.db.Read(t.Context()).Model(&models.Delivery{}).Where("status = ?", models.DeliveryDelivered).Count(&delivered).Error)
		return delivered == endpoints
	})
	b.post(t, b.poster, "hanging")
	for range endpoints {
		half.next(t) // this request hangs
	}
	b.clock.advance(expectedLatency + slowThreshold)
	for range maxLowPriority {
		b.post(t, b.poster, "hanging")
	}
	for range maxRetryWorkers / 2 {
		half.next(t) // later tasks are sent too
	}
	b.wantHealthyServed(t)
	var failing int64
	testutil.Must(t, b.db.Read(t.Context()).Model(&models.Webhook{}).Where("failing_since IS NOT NULL").Count(&failing).Error)
	testutil.Equal(t, "failing endpoints", failing, 0)
	b.stopNow(t)
}

// TestDeliver_movesToRetryQueue checks that a first attempt to a slow endpoint moves
// to the retry queue and is made once, even if a crash enqueues it there twice.
func TestDeliver_movesToRetryQueue(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
	agent, _ := b.addSubscriber(t, r.URL, "research")
	b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
	testutil.Equal(t, "first attempts", b.jobsInQueue(t, firstAttemptQueue), 1)
	b.limiter.addPenalty(agent, maxPenalty)
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	args := DeliverArgs{DeliveryID: b.deliveries(t, agent)[0].ID, Attempt: 1, Trace: trace}
	for range 2 {
		testutil.Must(t, b.deliver(t.Context(), args, firstAttemptQueue))
	}
	testutil.Equal(t, "requests", len(r.requests), 0)
	testutil.Equal(t, "jobs in the retry queue", b.jobsInQueue(t, retryQueue), 2)
	var traced int64
	testutil.Must(t, b.db.Read(t.Context()).Table("river_job").Where("queue = ? AND CAST(args AS TEXT) LIKE ?", retryQueue, "%"+trace+"%").Count(&traced).Error)
	testutil.Equal(t, "jobs with the trace of the post", traced, 2)
	for range 2 {
		testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
	}
	testutil.Equal(t, "requests", len(r.requests), 1)
	testutil.Equal(t, "status", b.deliveries(t, agent)[0].Status, models.DeliveryDelivered)

	b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
	testutil.Equal(t, "first attempts", b.jobsInQueue(t, firstAttemptQueue), 1)
	testutil.Equal(t, "jobs in the retry queue", b.jobsInQueue(t, retryQueue), 3)
}
