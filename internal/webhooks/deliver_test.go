package webhooks

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestDeliver(t *testing.T) {
	t.Parallel()

	t.Run("a matching agent gets a request with valid signatures", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		worker, secret := b.addSubscriber(t, r.URL, "research")
		b.run(t)

		b.post(t, b.addAgent(t), "research", "summarization")
		got := r.next(t)

		signature := got.header.Get("X-AgentMarket-Signature")
		testutil.Equal(t, "signature", signature, outbound.Sign(secret, got.body))
		verifyInNode(t, secret, signature, got.body)
		standard, err := standardwebhooks.NewWebhook(secret)
		testutil.Must(t, err)
		testutil.Must(t, standard.Verify(got.body, got.header))

		d := b.waitDeliveries(t, worker, models.DeliveryDelivered, 1)[0]
		testutil.Equal(t, "delivery id", got.header.Get("X-AgentMarket-Delivery"), d.ID)
		testutil.Equal(t, "response status", deref(d.ResponseStatus), any(200))
		testutil.Equal(t, "next attempt", deref(d.NextAttemptAt), nil)
		testutil.Equal(t, "stored attempts", len(b.attempts(t, d.ID)), 1)
	})

	t.Run("three failures and a success are four attempts of one delivery", func(t *testing.T) {
		t.Parallel()
		var n atomic.Int32
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1) <= 3 {
				http.Error(w, "not yet", http.StatusInternalServerError)
			}
		})
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback(), retries: fastRetries(5)})
		worker, _ := b.addSubscriber(t, r.URL, "research")
		b.run(t)

		b.post(t, b.addAgent(t), "research")
		d := b.waitDeliveries(t, worker, models.DeliveryDelivered, 1)[0]

		first := r.next(t)
		for number := 2; number <= 4; number++ {
			retry := r.next(t)
			testutil.Equal(t, "body", string(retry.body), string(first.body))
			testutil.Equal(t, "delivery", retry.header.Get("X-AgentMarket-Delivery"), d.ID)
			testutil.Equal(t, "attempt", retry.header.Get("X-AgentMarket-Attempt"), strconv.Itoa(number))
		}
		attempts := b.attempts(t, d.ID)
		testutil.Equal(t, "attempts", len(attempts), 4)
		testutil.Equal(t, "status of the first attempt", deref(attempts[0].ResponseStatus), any(500))
		testutil.Equal(t, "response to the first attempt", attempts[0].ResponseBody, "not yet\n")
		testutil.Equal(t, "error of the last attempt", deref(attempts[3].Error), nil)
		testutil.Equal(t, "failing since", deref(b.webhook(t, worker).FailingSince), nil)
	})

	t.Run("a delivery fails after its last attempt", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, respondWith(http.StatusInternalServerError))
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback(), retries: fastRetries(2)})
		worker, _ := b.addSubscriber(t, r.URL, "research")
		b.run(t)

		b.post(t, b.addAgent(t), "research")
		d := b.waitDeliveries(t, worker, models.DeliveryFailed, 1)[0]

		testutil.Equal(t, "attempts", d.Attempts, 3)
		testutil.Equal(t, "attempts left", d.AttemptsLeft, 0)
		testutil.Equal(t, "last error", deref(d.LastError), any("endpoint returned status 500"))
	})

	t.Run("a redirect is a failure and is not followed", func(t *testing.T) {
		t.Parallel()
		target := newReceiver(t, nil)
		r := newReceiver(t, func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, target.URL, http.StatusTemporaryRedirect)
		})
		b := open(t, settings{roots: certPool(r, target), allowNetworks: loopback(), retries: []time.Duration{}})
		worker, _ := b.addSubscriber(t, r.URL, "research")
		b.run(t)

		b.post(t, b.addAgent(t), "research")
		d := b.waitDeliveries(t, worker, models.DeliveryFailed, 1)[0]

		testutil.Equal(t, "response status", deref(d.ResponseStatus), any(307))
		testutil.Equal(t, "requests to the target", len(target.requests), 0)
	})

	t.Run("a host name with a private address is rejected, and the error is stored", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), retries: []time.Duration{}})
		worker, _ := b.addSubscriber(t, strings.Replace(r.URL, "127.0.0.1", "localhost", 1), "research")
		b.run(t)

		b.post(t, b.addAgent(t), "research")
		d := b.waitDeliveries(t, worker, models.DeliveryFailed, 1)[0]

		attempts := b.attempts(t, d.ID)
		testutil.Equal(t, "attempts", len(attempts), 1)
		testutil.Equal(t, "response status", deref(attempts[0].ResponseStatus), nil)
		testutil.Equal(t, "error", deref(attempts[0].Error), any("the address is not public"))
		testutil.Equal(t, "requests", len(r.requests), 0)
	})

	t.Run("410 suspends the webhook at once", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, respondWith(http.StatusGone))
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		worker, _ := b.addSubscriber(t, r.URL, "research")
		poster := b.addAgent(t)
		b.run(t)

		b.post(t, poster, "research")
		d := b.waitDeliveries(t, worker, models.DeliveryFailed, 1)[0]
		testutil.Equal(t, "response status", deref(d.ResponseStatus), any(410))
		testutil.Equal(t, "webhook", b.webhook(t, worker).Status, models.WebhookSuspended)

		b.post(t, poster, "research")
		next := b.waitDeliveries(t, worker, models.DeliveryFailed, 2)[0]
		testutil.Equal(t, "last error of the next delivery", deref(next.LastError), any(suspendedReason))
		testutil.Equal(t, "requests", len(r.requests), 1)
	})

	t.Run("410 from a replaced URL does not count", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		worker, _ := b.addSubscriber(t, "https://old.example/", "research")
		b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
		d, replaced := b.deliveries(t, worker)[0], b.webhook(t, worker)
		b.subscribe(t, worker, "https://new.example/")

		testutil.Must(t, b.recordOutcome(t.Context(), replaced, &d, 1, attemptOutcome{status: http.StatusGone, failureReason: failureReason(http.StatusGone)}))
		testutil.Equal(t, "webhook", b.webhook(t, worker).Status, models.WebhookActive)
		testutil.Equal(t, "failing since", deref(b.webhook(t, worker).FailingSince), nil)
		testutil.Equal(t, "delivery", b.deliveries(t, worker)[0].Status, models.DeliveryPending)
	})

	t.Run("five days of failures suspend the webhook, a success resets them", func(t *testing.T) {
		t.Parallel()
		var ok atomic.Bool
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			if !ok.Load() {
				w.WriteHeader(http.StatusBadGateway)
			}
		})
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback(), retries: []time.Duration{}})
		worker, _ := b.addSubscriber(t, r.URL, "research")
		poster := b.addAgent(t)
		b.run(t)
		fail := func(n int) { b.post(t, poster, "research"); b.waitDeliveries(t, worker, models.DeliveryFailed, n) }

		fail(1)
		b.clock.advance(3 * 24 * time.Hour)
		ok.Store(true)
		b.post(t, poster, "research")
		b.waitDeliveries(t, worker, models.DeliveryDelivered, 1)
		ok.Store(false)
		fail(2)
		b.clock.advance(suspendAfter - time.Hour)
		fail(3)
		testutil.Equal(t, "webhook before five days", b.webhook(t, worker).Status, models.WebhookActive)
		b.clock.advance(time.Hour)
		fail(4)
		testutil.Equal(t, "webhook after five days", b.webhook(t, worker).Status, models.WebhookSuspended)

		b.subscribe(t, worker, r.URL)
		testutil.Equal(t, "webhook after it is set again", b.webhook(t, worker).Status, models.WebhookActive)
		testutil.Equal(t, "failing since", deref(b.webhook(t, worker).FailingSince), nil)
	})

	t.Run("a timeout is a failure", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		r := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
		t.Cleanup(func() { close(release) })
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback(), retries: []time.Duration{}, timeout: 50 * time.Millisecond})
		worker, _ := b.addSubscriber(t, r.URL, "research")
		b.run(t)

		b.post(t, b.addAgent(t), "research")
		d := b.waitDeliveries(t, worker, models.DeliveryFailed, 1)[0]
		testutil.Equal(t, "response status", deref(d.ResponseStatus), nil)
	})

	t.Run("a delivery to a removed webhook fails", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		worker, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
		b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
		b.write(t, func(tx *database.Tx) error { return b.Unsubscribe(tx, worker) })
		b.run(t)

		d := b.waitDeliveries(t, worker, models.DeliveryFailed, 1)[0]
		testutil.Equal(t, "last error", deref(d.LastError), any(removedReason))
		testutil.Equal(t, "attempts", d.Attempts, 0)
	})
}

// TestDeliver_hangingEndpointDoesNotBlockOthers checks that an endpoint with the
// maximum number of hanging requests gets no further ones and does not delay
// deliveries to another endpoint.
func TestDeliver_hangingEndpointDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var concurrent gauge
	hanging := newReceiver(t, func(http.ResponseWriter, *http.Request) {
		concurrent.add(1)
		<-release
		concurrent.add(-1)
	})
	healthy := newReceiver(t, nil)
	b := open(t, settings{roots: certPool(hanging, healthy), allowNetworks: loopback()})
	slow, _ := b.addSubscriber(t, hanging.URL, "slow")
	b.addSubscriber(t, healthy.URL, "quick")
	poster := b.addAgent(t)
	b.run(t)

	for range maxPerEndpoint + 6 {
		b.post(t, poster, "slow")
	}
	for range maxPerEndpoint {
		hanging.next(t)
	}
	for range 6 {
		b.waitSnoozed(t)
	}
	b.post(t, poster, "quick")
	healthy.next(t)
	testutil.Equal(t, "further requests to the hanging endpoint", len(hanging.requests), 0)

	close(release)
	b.waitDeliveries(t, slow, models.DeliveryDelivered, maxPerEndpoint+6)
	testutil.Equal(t, "concurrent requests", concurrent.highest(), maxPerEndpoint)
}

// gauge counts concurrent calls and records the maximum.
type gauge struct {
	mu            sync.Mutex
	current, high int
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current += n
	g.high = max(g.high, g.current)
}

func (g *gauge) highest() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.high
}

// TestJobs_areIdempotent checks that every job may run twice: a crash can happen
// after the work of a job and before the queue records it.
func TestJobs_areIdempotent(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
	worker, _ := b.addSubscriber(t, r.URL, "research")
	event := b.post(t, b.addAgent(t), "research")

	b.matchEvent(t, event)
	b.matchEvent(t, event)
	rows := b.deliveries(t, worker)
	testutil.Equal(t, "deliveries", len(rows), 1)
	testutil.Equal(t, "jobs", b.jobsInQueue(t, firstAttemptQueue), 1)

	t.Log("sent and recorded: the second run does nothing")
	args := DeliverArgs{DeliveryID: rows[0].ID, Attempt: 1}
	testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
	testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
	testutil.Equal(t, "requests", len(r.requests), 1)

	t.Log("recorded: a second record of the same attempt changes nothing")
	testutil.Must(t, b.recordOutcome(t.Context(), b.webhook(t, worker), &rows[0], 1, attemptOutcome{status: 500, failureReason: failureReason(500)}))
	testutil.Equal(t, "status", b.deliveries(t, worker)[0].Status, models.DeliveryDelivered)

	t.Log("sent and not recorded: the receiver can detect the duplicate")
	b.write(t, func(tx *database.Tx) error {
		if err := tx.Delete(&models.Attempt{DeliveryID: rows[0].ID, Number: 1}).Error; err != nil {
			return err
		}
		return tx.Save(&rows[0]).Error
	})
	testutil.Must(t, b.deliver(t.Context(), args, retryQueue))
	first, second := r.next(t), r.next(t)
	for _, name := range []string{"X-AgentMarket-Delivery", "X-AgentMarket-Attempt", "webhook-id"} {
		testutil.Equal(t, name, second.header.Get(name), first.header.Get(name))
	}
	testutil.Equal(t, "body", string(second.body), string(first.body))
	testutil.Equal(t, "deliveries", len(b.deliveries(t, worker)), 1)
	testutil.Equal(t, "attempts", len(b.attempts(t, rows[0].ID)), 1)
}

// TestDrop_resumedWebhook checks that a delivery is not dropped when its webhook was
// resumed after the job read it.
func TestDrop_resumedWebhook(t *testing.T) {
	t.Parallel()
	b, worker, d := newPendingDelivery(t)
	if err := b.drop(t.Context(), &d, suspendedReason); err == nil {
		t.Error("the job of the delivery completes, want a snooze")
	}
	testutil.Equal(t, "status", b.deliveries(t, worker)[0].Status, models.DeliveryPending)
}

func TestBusySnooze(t *testing.T) {
	t.Parallel()
	testutil.Equal(t, "endpoint that makes progress", busySnooze(time.Millisecond, 0.5), minBusySnooze)
	testutil.Equal(t, "endpoint that hangs for 7 s", busySnooze(7*time.Second, 0.5), 7*time.Second)
	testutil.Equal(t, "endpoint that hangs for an hour", busySnooze(time.Hour, 0.5), maxBusySnooze)
}

// waitSnoozed waits until a job has snoozed since the last call.
func (b *bundle) waitSnoozed(t *testing.T) {
	t.Helper()
	count := "SELECT COALESCE(SUM(json_extract(metadata, '$.snoozes')), 0) FROM river_job"
	if services.OnPostgres() {
		count = "SELECT COALESCE(SUM((metadata->>'snoozes')::int), 0) FROM river_job"
	}
	seen := b.snoozes
	testutil.Eventually(t, "a job to snooze", func() bool {
		testutil.Must(t, b.db.Read(t.Context()).Raw(count).Scan(&b.snoozes).Error)
		return b.snoozes > seen
	})
}

// jobsInQueue counts the jobs in a queue.
func (b *bundle) jobsInQueue(t *testing.T, queue string) int64 {
	t.Helper()
	var n int64
	testutil.Must(t, b.db.Read(t.Context()).Table("river_job").Where("queue = ?", queue).Count(&n).Error)
	return n
}

// respondWith returns a handler that responds with a status code.
func respondWith(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func verifyInNode(t *testing.T, secret, signature string, body []byte) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("node is required to run the documented snippet")
		}
		t.Log("NOT RUN: the documented snippet, node is not installed")
		return
	}
	command := exec.CommandContext(t.Context(), node, "testdata/verify.mjs", secret, signature)
	command.Stdin = bytes.NewReader(body)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("node: %v\n%s", err, out)
	}
}
