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
	"agentmarket.space/server/models"
)

// hang is a receiver that answers nothing before the test ends.
func hang(t *testing.T) *receiver {
	t.Helper()
	return hangBut(t, func(string) bool { return false })
}

// hangSome is one that answers the first request to a path.
func hangSome(t *testing.T) *receiver {
	t.Helper()
	var seen sync.Map
	return hangBut(t, func(path string) bool {
		_, again := seen.LoadOrStore(path, true)
		return !again
	})
}

// hangBut is one that answers some requests.
func hangBut(t *testing.T, answers func(path string) bool) *receiver {
	t.Helper()
	release := make(chan struct{})
	r := receive(t, func(w http.ResponseWriter, req *http.Request) {
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

// crowd is a market with an endpoint that is well beside one that hangs for longer
// than any test waits.
type crowd struct {
	*bundle
	hanging, well *receiver
	wellID        string
	poster        string
}

func gather(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{hanging: hang(t), well: receive(t, nil)}
	c.bundle = open(t, settings{roots: roots(c.hanging, c.well), allow: local(), timeout: 10 * patient})
	c.wellID, _ = c.subscriber(t, c.well.URL, "well")
	c.poster = c.agent(t)
	return c
}

// stop gives up what hangs. What is cut off is nobody's failure.
func (c *crowd) stop(t *testing.T) {
	t.Helper()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, c.Stop(over))
}

// hears wants the endpoint that is well to be told of a new task, while all others
// hang still.
func (c *crowd) hears(t *testing.T) {
	t.Helper()
	began := time.Now()
	c.post(t, c.poster, "well")
	c.well.next(t)
	t.Logf("told after %s", time.Since(began).Round(time.Millisecond))
}

// TestFairness_failing: endpoints that fail, more than there are workers for, hold
// up none that answers.
func TestFairness_failing(t *testing.T) {
	t.Parallel()
	c := gather(t)
	const endpoints = firstWorkers/perEndpoint + 6
	for i := range endpoints {
		c.subscriber(t, fmt.Sprintf("%s/%d", c.hanging.URL, i), "hanging")
	}
	c.write(t, func(tx *database.Tx) error {
		return tx.Model(&models.Webhook{}).Where("agent_id <> ?", c.wellID).Update("failing_since", c.stamp()).Error
	})
	for range perEndpoint {
		c.post(t, c.poster, "hanging")
	}
	c.run(t)
	for range laterWorkers {
		c.hanging.next(t)
	}
	c.hears(t)
	c.stop(t)
}

// TestFairness_backlog: a long queue to one endpoint that hangs holds up no other.
func TestFairness_backlog(t *testing.T) {
	t.Parallel()
	c := gather(t)
	c.subscriber(t, c.hanging.URL, "hanging")
	for range 2 * firstWorkers {
		c.matched(t, c.post(t, c.poster, "hanging"))
	}
	c.write(t, func(tx *database.Tx) error { return tx.Exec("DELETE FROM river_job WHERE queue = ?", matchQueue).Error })
	c.run(t)
	for range perEndpoint {
		c.hanging.next(t)
	}
	c.hears(t)
	c.stop(t)
}

// TestFairness_redelivered: what is sent again by the page, to an endpoint that
// hangs, holds up neither another's first try nor its own.
func TestFairness_redelivered(t *testing.T) {
	t.Parallel()
	c := gather(t)
	agent, _ := c.subscriber(t, c.hanging.URL, "hanging")
	for range laterWorkers + perEndpoint {
		c.matched(t, c.post(t, c.poster, "hanging"))
	}
	c.write(t, func(tx *database.Tx) error {
		if err := tx.Exec("DELETE FROM river_job").Error; err != nil {
			return err
		}
		return tx.Exec("UPDATE deliveries SET status = 'failed'").Error
	})
	n, err := c.redeliverFailed(t, agent, models.FailedQuery{First: 1000})
	must(t, err)
	equal(t, "redelivered", n, laterWorkers+perEndpoint)
	c.run(t)
	for range laterAtOnce {
		c.hanging.next(t)
	}
	c.hears(t)
	own := c.post(t, c.poster, "hanging")
	got := c.hanging.next(t)
	var d models.Delivery
	must(t, c.db.Read(t.Context()).Take(&d, "event_id = ?", own.ID).Error)
	equal(t, "the next that the hanging one gets", got.header.Get("X-AgentMarket-Delivery"), d.ID)
	c.stop(t)
}

// TestFairness_halfHanging: endpoints that answer one request and hang the next never
// do nothing but fail, and there are more of them than it takes to have all workers of
// the first tries. They hold up nobody once it is seen that they hang.
func TestFairness_halfHanging(t *testing.T) {
	t.Parallel()
	c := gather(t)
	const endpoints = firstWorkers/laterAtOnce + 1
	half := hangSome(t)
	c.client = newClient(roots(half, c.well), local())
	for i := range endpoints {
		c.subscriber(t, fmt.Sprintf("%s/%d", half.URL, i), "hanging")
	}
	c.run(t)
	c.post(t, c.poster, "hanging")
	for range endpoints {
		half.next(t)
	}
	c.until(t, "all to have answered one", func() bool {
		var answered int64
		must(t, c.db.Read(t.Context()).Model(&models.Delivery{}).Where("status = ?", models.DeliveryDelivered).Count(&answered).Error)
		return answered == endpoints
	})
	c.post(t, c.poster, "hanging")
	for range endpoints {
		half.next(t) // and it hangs
	}
	c.clock.forward(prompt + allowance)
	for range laterAtOnce {
		c.post(t, c.poster, "hanging")
	}
	for range laterWorkers / 2 {
		half.next(t) // what comes later is sent as well
	}
	c.hears(t)
	var failing int64
	must(t, c.db.Read(t.Context()).Model(&models.Webhook{}).Where("failing_since IS NOT NULL").Count(&failing).Error)
	equal(t, "endpoints that do nothing but fail", failing, 0)
	c.stop(t)
}

// TestSlots: of the requests to one agent one is left for what is fresh, and so is
// half of the room to wait in.
func TestSlots(t *testing.T) {
	t.Parallel()
	s := newSlots(time.Now)
	over, cancel := context.WithCancel(t.Context())
	cancel() // what has no room now is sent away at once
	held := map[bool][]slot{}
	take := func(later bool) bool {
		taken, _, ok := s.take(over, "a", later)
		if ok {
			held[later] = append(held[later], taken)
		}
		return ok
	}
	free := func(later bool) {
		s.free(held[later][0])
		held[later] = held[later][1:]
	}
	for i := range laterAtOnce + 1 {
		equal(t, fmt.Sprintf("old request %d", i+1), take(true), i < laterAtOnce)
	}
	equal(t, "a fresh one", take(false), true)
	equal(t, "another fresh one", take(false), false)
	free(true)
	equal(t, "a fresh one in the place of an old one", take(false), true)
	for range 2 {
		free(true)
		free(false)
	}
	equal(t, "agents with requests", len(s.lanes), 0)

	for range laterAtOnce + waitingRoom/2 {
		equal(t, "an old one may wait", s.enter("a", true) != nil, true)
	}
	equal(t, "one more may not", s.enter("a", true) == nil, true)
	equal(t, "crowded", s.crowded("a"), false)
	equal(t, "a fresh one may", s.enter("a", false) != nil, true)
	equal(t, "crowded", s.crowded("a"), true)
}

// TestSlots_slow: who keeps requests waiting is slow before they have ended, for half a
// minute for each second, and whatever it answers meanwhile.
func TestSlots_slow(t *testing.T) {
	t.Parallel()
	clock := &clock{fixed: time.Unix(1_700_000_000, 0)}
	s := newSlots(clock.now)
	take := func() slot {
		taken, _, ok := s.take(t.Context(), "a", false)
		equal(t, "a slot", ok, true)
		return taken
	}
	first, second := take(), take()
	clock.forward(prompt + allowance/2 - 1)
	equal(t, "slow while two requests are a little less late than is allowed", s.slow("a"), false)
	clock.forward(1)
	equal(t, "slow when they are as late", s.slow("a"), true)
	s.free(first)
	equal(t, "slow when one has ended", s.slow("a"), true)
	s.free(second)
	equal(t, "slow when both have", s.slow("a"), true)
	for range 100 {
		s.free(take())
	}
	equal(t, "slow after a hundred prompt answers", s.slow("a"), true)
	clock.forward(payback)
	equal(t, "slow once nanoseconds are paid back", s.slow("a"), false)
	equal(t, "slow elsewhere", s.slow("b"), false)

	hanging := take()
	clock.forward(24 * time.Hour)
	s.free(hanging)
	equal(t, "owed after a day", s.debts["a"].owed, mostOwed)
	clock.forward(payback*(mostOwed-allowance) - payback)
	equal(t, "slow just before it is forgiven", s.slow("a"), true)
	clock.forward(2 * payback)
	equal(t, "slow when it is", s.slow("a"), false)
}

// TestSlots_forget: debts that are paid are not kept.
func TestSlots_forget(t *testing.T) {
	t.Parallel()
	clock := &clock{fixed: time.Unix(1_700_000_000, 0)}
	s := newSlots(clock.now)
	for i := range 10 * leastForgotten {
		clock.forward(time.Second)
		s.owe(strconv.Itoa(i), time.Second)
	}
	if n := len(s.debts); n > 2*leastForgotten {
		t.Errorf("%d debts are kept, of which all but %d are paid", n, payback)
	}
}

// TestSlots_slowWaitsForNothing: nobody waits for a slot of an agent that is slow, and
// who is sent away stays away for as long as it owes.
func TestSlots_slowWaitsForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(time.Now)
		for range perEndpoint {
			_, _, ok := s.take(t.Context(), "a", false)
			equal(t, "a slot", ok, true)
		}
		began := time.Now()
		_, _, ok := s.take(t.Context(), "a", false)
		equal(t, "a slot", ok, false)
		equal(t, "waited", time.Since(began), waitingTime)
		<-time.After(20 * time.Second)
		s.lanes["a"].progress = time.Now() // as if it had just answered
		began = time.Now()
		_, stalled, ok := s.take(t.Context(), "a", false)
		equal(t, "a slot", ok, false)
		equal(t, "waited", time.Since(began), 0)
		equal(t, "stalled for", stalled, mostOwed)
	})
}

// TestDeliver_stepsAside: a first try to an endpoint that has become slow since it was
// queued goes to where the retries wait, and is made there once, also when the process
// died in between and it went there twice.
func TestDeliver_stepsAside(t *testing.T) {
	t.Parallel()
	r := receive(t, nil)
	b := open(t, settings{roots: roots(r), allow: local()})
	agent, _ := b.subscriber(t, r.URL, "research")
	b.matched(t, b.post(t, b.agent(t), "research"))
	equal(t, "first tries", b.queued(t, firstQueue), 1)
	b.slots.owe(agent, mostOwed)
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	args := DeliverArgs{DeliveryID: b.deliveries(t, agent)[0].ID, Attempt: 1, Trace: trace}
	for range 2 {
		must(t, b.deliver(t.Context(), args, firstQueue))
	}
	equal(t, "requests", len(r.got), 0)
	equal(t, "tries that wait with the retries", b.queued(t, laterQueue), 2)
	var traced int64
	must(t, b.db.Read(t.Context()).Table("river_job").Where("queue = ? AND CAST(args AS TEXT) LIKE ?", laterQueue, "%"+trace+"%").Count(&traced).Error)
	equal(t, "of them in the trace of the post", traced, 2)
	for range 2 {
		must(t, b.deliver(t.Context(), args, laterQueue))
	}
	equal(t, "requests", len(r.got), 1)
	equal(t, "status", b.deliveries(t, agent)[0].Status, models.DeliveryDelivered)

	b.matched(t, b.post(t, b.agent(t), "research"))
	equal(t, "first tries", b.queued(t, firstQueue), 1)
	equal(t, "tries that wait with the retries", b.queued(t, laterQueue), 3)
}
