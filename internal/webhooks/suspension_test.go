package webhooks

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestResume checks that a 410 suspends a webhook with a time and a reason, and that
// after Resume the missed deliveries can be redelivered once.
func TestResume(t *testing.T) {
	t.Parallel()
	var back atomic.Bool
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		if !back.Load() {
			w.WriteHeader(http.StatusGone)
		}
	})
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
	agent, _ := b.addSubscriber(t, r.URL, "research")
	poster := b.addAgent(t)
	b.run(t)
	start := b.timestamp()
	b.post(t, poster, "research")
	b.waitDeliveries(t, agent, models.DeliveryFailed, 1)
	for range 3 {
		b.post(t, poster, "research")
	}
	b.waitDeliveries(t, agent, models.DeliveryFailed, 4)
	hook := b.webhook(t, agent)
	testutil.Equal(t, "status", hook.Status, models.WebhookSuspended)
	testutil.Equal(t, "reason", deref(hook.SuspendedReason), any(models.SuspendedGone))
	if hook.SuspendedAt == nil || *hook.SuspendedAt < start || *hook.SuspendedAt > b.timestamp() {
		t.Errorf("suspended at %v, want a time between %v and now", hook.SuspendedAt, start)
	}
	testutil.Equal(t, "failed", b.count(t, agent, models.DeliveryFailed), 4)
	testutil.Equal(t, "pending", b.count(t, agent, models.DeliveryPending), 0)
	testutil.Equal(t, "requests", len(r.requests), 1)

	_, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: 10})
	testutil.Equal(t, "code while suspended", models.CodeOf(err), models.Conflict)
	testutil.Equal(t, "failed after the conflict", b.count(t, agent, models.DeliveryFailed), 4)
	back.Store(true)
	resumed := b.resume(t, agent)
	testutil.Equal(t, "status", resumed.Status, models.WebhookActive)
	testutil.Equal(t, "reason", deref(resumed.SuspendedReason), nil)
	for name, got := range map[string]models.Webhook{"stored": *b.webhook(t, agent), "resumed twice": b.resume(t, agent)} {
		if !reflect.DeepEqual(got, resumed) {
			t.Errorf("%s: got %+v, want %+v", name, got, resumed)
		}
	}
	b.post(t, poster, "research")
	b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)
	testutil.Equal(t, "failed after Resume", b.count(t, agent, models.DeliveryFailed), 4)

	n, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: 10})
	testutil.Must(t, err)
	testutil.Equal(t, "redelivered", n, 4)
	b.waitDeliveries(t, agent, models.DeliveryDelivered, 5)
	testutil.Equal(t, "requests", len(r.requests), 6)
}

// TestResume_ignoresStaleOutcome checks that the outcome of an attempt that started
// before Resume does not suspend the webhook again.
func TestResume_ignoresStaleOutcome(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, _ := b.addSubscriber(t, "https://bot.example/", "research")
	poster := b.addAgent(t)
	b.matchEvent(t, b.post(t, poster, "research"))
	b.matchEvent(t, b.post(t, poster, "research"))
	deliveries, before := b.deliveries(t, agent), b.webhook(t, agent)
	gone := attemptOutcome{status: http.StatusGone, failureReason: failureReason(http.StatusGone)}
	testutil.Must(t, b.recordOutcome(t.Context(), before, &deliveries[0], 1, gone))
	suspended := b.webhook(t, agent)
	testutil.Equal(t, "webhook", suspended.Status, models.WebhookSuspended)
	b.clock.advance(1)
	testutil.Must(t, b.recordOutcome(t.Context(), before, &deliveries[1], 1, gone))
	testutil.Equal(t, "suspended since", *b.webhook(t, agent).SuspendedAt, *suspended.SuspendedAt)
	b.resume(t, agent)
	b.setStatus(t, deliveries[1].ID, models.DeliveryPending)
	testutil.Must(t, b.recordOutcome(t.Context(), before, &deliveries[1], 2, gone))
	testutil.Equal(t, "webhook", b.webhook(t, agent).Status, models.WebhookActive)
	testutil.Equal(t, "failing since", deref(b.webhook(t, agent).FailingSince), nil)
}

// TestSuspension_appendsEvents checks that each suspension and each resumption appends
// exactly one event in its transaction, with concurrent and repeated outcomes, and that
// a rollback appends none.
func TestSuspension_appendsEvents(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, _ := b.addSubscriber(t, "https://bot.example/", "research")
	poster := b.addAgent(t)
	for range 8 {
		b.matchEvent(t, b.post(t, poster, "research"))
	}
	gone, before := attemptOutcome{status: http.StatusGone, failureReason: failureReason(http.StatusGone)}, b.webhook(t, agent)
	eventKinds := func() string {
		var kinds []string
		testutil.Must(t, b.db.Read(t.Context()).Model(&models.Event{}).Where("agent_id = ?", agent).Order("id").Pluck("kind", &kinds).Error)
		return strings.Join(kinds, " ")
	}
	all := b.deliveries(t, agent)
	errRollback := errors.New("rollback")
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		change, err := b.applyOutcome(tx, before, all[0].ID, 1, gone)
		if err != nil || !change.suspended {
			t.Errorf("suspended: %t (%v)", change.suspended, err)
		}
		return errRollback
	})
	testutil.Equal(t, "error", err, errRollback)
	testutil.Equal(t, "events after a rollback", eventKinds(), "")
	for range 2 {
		var group sync.WaitGroup
		for i := range all {
			group.Go(func() {
				if err := b.recordOutcome(t.Context(), before, &all[i], 1, gone); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	testutil.Equal(t, "events", eventKinds(), "webhook.suspended")
	for range 2 {
		b.resume(t, agent)
	}
	testutil.Equal(t, "events", eventKinds(), "webhook.suspended webhook.resumed")
	resumed := b.webhook(t, agent)
	b.setStatus(t, all[0].ID, models.DeliveryPending)
	testutil.Must(t, b.recordOutcome(t.Context(), resumed, &all[0], 2, gone))
	for range 2 {
		b.clock.advance(time.Second)
		b.subscribe(t, agent, "https://bot.example/other")
	}
	testutil.Equal(t, "events", eventKinds(), "webhook.suspended webhook.resumed webhook.suspended webhook.resumed")
}

// TestResume_withoutWebhook checks that Resume without a webhook is a conflict.
func TestResume_withoutWebhook(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent := b.addAgent(t)
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		_, err := b.Resume(tx, agent)
		return err
	})
	testutil.Equal(t, "code", models.CodeOf(err), models.Conflict)
}

func (b *bundle) resume(t *testing.T, agentID string) (hook models.Webhook) {
	t.Helper()
	b.write(t, func(tx *database.Tx) (err error) {
		hook, err = b.Resume(tx, agentID)
		return err
	})
	return hook
}

func (b *bundle) count(t *testing.T, agentID string, status models.DeliveryStatus) int {
	t.Helper()
	n, err := b.CountDeliveries(t.Context(), agentID, status)
	testutil.Must(t, err)
	return n
}
