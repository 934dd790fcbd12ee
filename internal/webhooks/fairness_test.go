package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// newHangingReceiver is a receiver that answers nothing before the test ends.
func newHangingReceiver(t *testing.T) *receiver {
	t.Helper()
	return newSelectiveReceiver(t, func(string) bool { return false })
}

// newHalfHangingReceiver is one that answers the first request to a path.
func newHalfHangingReceiver(t *testing.T) *receiver {
	t.Helper()
	var seen sync.Map
	return newSelectiveReceiver(t, func(path string) bool {
		_, again := seen.LoadOrStore(path, true)
		return !again
	})
}

// newSelectiveReceiver is one that answers some requests.
func newSelectiveReceiver(t *testing.T, answers func(path string) bool) *receiver {
	t.Helper()
	release := make(chan struct{})
	r := newReceiver(t, func(w http.ResponseWriter, req *http.Request) {
		if answers(req.URL.Path) {
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

// fairnessBundle is a market with an endpoint that is well beside one that hangs for longer
// than any test waits.
type fairnessBundle struct {
	*bundle
	hanging, healthy *receiver
	healthyID        string
	poster           string
}

func newFairnessBundle(t *testing.T) *fairnessBundle {
	t.Helper()
	c := &fairnessBundle{hanging: newHangingReceiver(t), healthy: newReceiver(t, nil)}
	c.bundle = open(t, settings{roots: certPool(c.hanging, c.healthy), allowNetworks: loopback(), timeout: 10 * testutil.Timeout})
	c.healthyID, _ = c.addSubscriber(t, c.healthy.URL, "well")
	c.poster = c.addAgent(t)
	return c
}

// stopNow gives up what hangs. What is cut off is nobody's failure.
func (c *fairnessBundle) stopNow(t *testing.T) {
	t.Helper()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	testutil.Must(t, c.Stop(over))
}

// wantHealthyServed wants the endpoint that is well to be told of a new task, while all others
// hang still.
func (c *fairnessBundle) wantHealthyServed(t *testing.T) {
	t.Helper()
	began := time.Now()
	c.post(t, c.poster, "well")
	c.healthy.next(t)
	t.Logf("told after %s", time.Since(began).Round(time.Millisecond))
}

// TestFairness_failing: endpoints that fail, more than there are workers for, hold
// up none that answers.
func TestFairness_failing(t *testing.T) {
	t.Parallel()
	c := newFairnessBundle(t)
	const endpoints = maxFirstAttemptWorkers/maxPerEndpoint + 6
	for i := range endpoints {
		c.addSubscriber(t, fmt.Sprintf("%s/%d", c.hanging.URL, i), "hanging")
	}
	c.write(t, func(tx *database.Tx) error {
		return tx.Model(&models.Webhook{}).Where("agent_id <> ?", c.healthyID).Update("failing_since", c.timestamp()).Error
	})
	for range maxPerEndpoint {
		c.post(t, c.poster, "hanging")
	}
	c.run(t)
	for range maxRetryWorkers {
		c.hanging.next(t)
	}
	c.wantHealthyServed(t)
	c.stopNow(t)
}

// TestFairness_backlog: a long queue to one endpoint that hangs holds up no other.
func TestFairness_backlog(t *testing.T) {
	t.Parallel()
	c := newFairnessBundle(t)
	c.addSubscriber(t, c.hanging.URL, "hanging")
	for range 2 * maxFirstAttemptWorkers {
		c.matchEvent(t, c.post(t, c.poster, "hanging"))
	}
	c.write(t, func(tx *database.Tx) error { return tx.Exec("DELETE FROM river_job WHERE queue = ?", matchQueue).Error })
	c.run(t)
	for range maxPerEndpoint {
		c.hanging.next(t)
	}
	c.wantHealthyServed(t)
	c.stopNow(t)
}

// TestFairness_redelivered: what is sent again by the page, to an endpoint that
// hangs, holds up neither another's first try nor its own.
func TestFairness_redelivered(t *testing.T) {
	t.Parallel()
	c := newFairnessBundle(t)
	agent, _ := c.addSubscriber(t, c.hanging.URL, "hanging")
	for range maxRetryWorkers + maxPerEndpoint {
		c.matchEvent(t, c.post(t, c.poster, "hanging"))
	}
	c.write(t, func(tx *database.Tx) error {
		if err := tx.Exec("DELETE FROM river_job").Error; err != nil {
			return err
		}
		return tx.Exec("UPDATE deliveries SET status = 'failed'").Error
	})
	n, err := c.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: 1000})
	testutil.Must(t, err)
	testutil.Equal(t, "redelivered", n, maxRetryWorkers+maxPerEndpoint)
	c.run(t)
	for range maxLowPriority {
		c.hanging.next(t)
	}
	c.wantHealthyServed(t)
	own := c.post(t, c.poster, "hanging")
	got := c.hanging.next(t)
	var d models.Delivery
	testutil.Must(t, c.db.Read(t.Context()).Take(&d, "event_id = ?", own.ID).Error)
	testutil.Equal(t, "the next that the hanging one gets", got.header.Get("X-AgentMarket-Delivery"), d.ID)
	c.stopNow(t)
}

// TestFairness_intermittentlyHanging: endpoints that answer one request and hang the next never
// do nothing but fail, and there are more of them than it takes to have all workers of
// the first tries. They hold up nobody once it is seen that they hang.
func TestFairness_intermittentlyHanging(t *testing.T) {
	t.Parallel()
	c := newFairnessBundle(t)
	const endpoints = maxFirstAttemptWorkers/maxLowPriority + 1
	half := newHalfHangingReceiver(t)
	c.client = newClient(certPool(half, c.healthy), loopback())
	for i := range endpoints {
		c.addSubscriber(t, fmt.Sprintf("%s/%d", half.URL, i), "hanging")
	}
	c.run(t)
	c.post(t, c.poster, "hanging")
	for range endpoints {
		half.next(t)
	}
	c.eventually(t, "all to have answered one", func() bool {
		var answered int64
		testutil.Must(t, c.db.Read(t.Context()).Model(&models.Delivery{}).Where("status = ?", models.DeliveryDelivered).Count(&answered).Error)
		return answered == endpoints
	})
	c.post(t, c.poster, "hanging")
	for range endpoints {
		half.next(t) // and it hangs
	}
	c.clock.advance(expectedLatency + slowThreshold)
	for range maxLowPriority {
		c.post(t, c.poster, "hanging")
	}
	for range maxRetryWorkers / 2 {
		half.next(t) // what comes later is sent as well
	}
	c.wantHealthyServed(t)
	var failing int64
	testutil.Must(t, c.db.Read(t.Context()).Model(&models.Webhook{}).Where("failing_since IS NOT NULL").Count(&failing).Error)
	testutil.Equal(t, "endpoints that do nothing but fail", failing, 0)
	c.stopNow(t)
}

// TestEndpointLimiter: of the requests to one agent one is left for what is fresh, and so is
// half of the room to wait in.
func TestEndpointLimiter(t *testing.T) {
	t.Parallel()
	s := newEndpointLimiter(time.Now)
	over, cancel := context.WithCancel(t.Context())
	cancel() // what has no room now is sent away at once
	held := map[bool][]slot{}
	take := func(later bool) bool {
		taken, _, ok := s.acquire(over, "a", later)
		if ok {
			held[later] = append(held[later], taken)
		}
		return ok
	}
	free := func(later bool) {
		s.release(held[later][0])
		held[later] = held[later][1:]
	}
	for i := range maxLowPriority + 1 {
		testutil.Equal(t, fmt.Sprintf("old request %d", i+1), take(true), i < maxLowPriority)
	}
	testutil.Equal(t, "a fresh one", take(false), true)
	testutil.Equal(t, "another fresh one", take(false), false)
	free(true)
	testutil.Equal(t, "a fresh one in the place of an old one", take(false), true)
	for range 2 {
		free(true)
		free(false)
	}
	testutil.Equal(t, "agents with requests", len(s.endpoints), 0)

	for range maxLowPriority + maxWaiting/2 {
		testutil.Equal(t, "an old one may wait", s.register("a", true) != nil, true)
	}
	testutil.Equal(t, "one more may not", s.register("a", true) == nil, true)
	testutil.Equal(t, "crowded", s.isCrowded("a"), false)
	testutil.Equal(t, "a fresh one may", s.register("a", false) != nil, true)
	testutil.Equal(t, "crowded", s.isCrowded("a"), true)
}

// TestEndpointLimiter_detectsSlow: who keeps requests waiting is slow before they have ended, for half a
// minute for each second, and whatever it answers meanwhile.
func TestEndpointLimiter_detectsSlow(t *testing.T) {
	t.Parallel()
	clock := &clock{fixed: time.Unix(1_700_000_000, 0)}
	s := newEndpointLimiter(clock.now)
	take := func() slot {
		taken, _, ok := s.acquire(t.Context(), "a", false)
		testutil.Equal(t, "a slot", ok, true)
		return taken
	}
	first, second := take(), take()
	clock.advance(expectedLatency + slowThreshold/2 - 1)
	testutil.Equal(t, "slow while two requests are a little less late than is allowed", s.isSlow("a"), false)
	clock.advance(1)
	testutil.Equal(t, "slow when they are as late", s.isSlow("a"), true)
	s.release(first)
	testutil.Equal(t, "slow when one has ended", s.isSlow("a"), true)
	s.release(second)
	testutil.Equal(t, "slow when both have", s.isSlow("a"), true)
	for range 100 {
		s.release(take())
	}
	testutil.Equal(t, "slow after a hundred prompt answers", s.isSlow("a"), true)
	clock.advance(penaltyDecay)
	testutil.Equal(t, "slow once nanoseconds are paid back", s.isSlow("a"), false)
	testutil.Equal(t, "slow elsewhere", s.isSlow("b"), false)

	hanging := take()
	clock.advance(24 * time.Hour)
	s.release(hanging)
	testutil.Equal(t, "owed after a day", s.penalties["a"].amount, maxPenalty)
	clock.advance(penaltyDecay*(maxPenalty-slowThreshold) - penaltyDecay)
	testutil.Equal(t, "slow just before it is forgiven", s.isSlow("a"), true)
	clock.advance(2 * penaltyDecay)
	testutil.Equal(t, "slow when it is", s.isSlow("a"), false)
}

// TestEndpointLimiter_prunesPenalties: debts that are paid are not kept.
func TestEndpointLimiter_prunesPenalties(t *testing.T) {
	t.Parallel()
	clock := &clock{fixed: time.Unix(1_700_000_000, 0)}
	s := newEndpointLimiter(clock.now)
	for i := range 10 * minPenaltiesToPrune {
		clock.advance(time.Second)
		s.addPenalty(strconv.Itoa(i), time.Second)
	}
	if n := len(s.penalties); n > 2*minPenaltiesToPrune {
		t.Errorf("%d debts are kept, of which all but %d are paid", n, penaltyDecay)
	}
}

// TestEndpointLimiter_slowDoesNotWait: nobody waits for a slot of an agent that is slow, and
// who is sent away stays away for as long as it owes.
func TestEndpointLimiter_slowDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newEndpointLimiter(time.Now)
		for range maxPerEndpoint {
			_, _, ok := s.acquire(t.Context(), "a", false)
			testutil.Equal(t, "a slot", ok, true)
		}
		began := time.Now()
		_, _, ok := s.acquire(t.Context(), "a", false)
		testutil.Equal(t, "a slot", ok, false)
		testutil.Equal(t, "waited", time.Since(began), slotWaitTimeout)
		<-time.After(20 * time.Second)
		s.endpoints["a"].lastProgress = time.Now() // as if it had just answered
		began = time.Now()
		_, stalled, ok := s.acquire(t.Context(), "a", false)
		testutil.Equal(t, "a slot", ok, false)
		testutil.Equal(t, "waited", time.Since(began), 0)
		testutil.Equal(t, "stalled for", stalled, maxPenalty)
	})
}

// TestDeliver_movesToRetryQueue: a first try to an endpoint that has become slow since it was
// queued goes to where the retries wait, and is made there once, also when the process
// died in between and it went there twice.
func TestDeliver_movesToRetryQueue(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
	agent, _ := b.addSubscriber(t, r.URL, "research")
	b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
	testutil.Equal(t, "first tries", b.jobsInQueue(t, firstAttemptQueue), 1)
	b.limiter.addPenalty(agent, maxPenalty)
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	args := DeliverArgs{DeliveryID: b.deliveries(t, agent)[0].ID, Attempt: 1, Trace: trace}
	for range 2 {
		testutil.Must(t, b.deliver(t.Context(), args, firstAttemptQueue))
	}
	testutil.Equal(t, "requests", len(r.requests), 0)
	testutil.Equal(t, "tries that wait with the retries", b.jobsInQueue(t, retryQueue), 2)
	var traced int64
	testutil.Must(t, b.db.Read(t.Context()).Table("river_job").Where("queue = ? AND CAST(args AS TEXT) LIKE ?", retryQueue, "%"+trace+"%").Count(&traced).Error)
	testutil.Equal(t, "of them in the trace of the post", traced, 2)
	for range 2 {
		testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
	}
	testutil.Equal(t, "requests", len(r.requests), 1)
	testutil.Equal(t, "status", b.deliveries(t, agent)[0].Status, models.DeliveryDelivered)

	b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
	testutil.Equal(t, "first tries", b.jobsInQueue(t, firstAttemptQueue), 1)
	testutil.Equal(t, "tries that wait with the retries", b.jobsInQueue(t, retryQueue), 3)
}
