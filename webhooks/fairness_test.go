package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"agentmarket.space/server/database"
	"agentmarket.space/server/models"
)

// hang is a receiver that answers nothing before the test ends.
func hang(t *testing.T) *receiver {
	t.Helper()
	release := make(chan struct{})
	r := receive(t, func(w http.ResponseWriter, req *http.Request) {
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

// TestSlots: of the requests to one agent one is left for what is fresh, and so is
// half of the room to wait in.
func TestSlots(t *testing.T) {
	t.Parallel()
	s := slots{now: time.Now, lanes: map[string]*lane{}}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	take := func(later bool) bool {
		ctx := over // what has no room now is sent away at once
		if l := s.lanes["a"]; l == nil || len(l.requests) < perEndpoint && (!later || len(l.later) < laterAtOnce) {
			ctx = t.Context()
		}
		_, ok := s.take(ctx, "a", later)
		return ok
	}
	for i := range laterAtOnce + 1 {
		equal(t, fmt.Sprintf("old request %d", i+1), take(true), i < laterAtOnce)
	}
	equal(t, "a fresh one", take(false), true)
	equal(t, "another fresh one", take(false), false)
	s.free("a", true)
	equal(t, "a fresh one in the place of an old one", take(false), true)
	for range 2 {
		s.free("a", true)
		s.free("a", false)
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
