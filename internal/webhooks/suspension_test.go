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

// TestResume: a receiver says that it is gone, its owner sees since when and why
// and what is due, and has it served again: what was missed is kept and comes when
// it is asked for, once.
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
	began := b.timestamp()
	b.post(t, poster, "research")
	b.waitDeliveries(t, agent, models.DeliveryFailed, 1)
	for range 3 {
		b.post(t, poster, "research")
	}
	b.waitDeliveries(t, agent, models.DeliveryFailed, 4)
	hook := b.webhook(t, agent)
	testutil.Equal(t, "status", hook.Status, models.WebhookSuspended)
	testutil.Equal(t, "reason", deref(hook.SuspendedReason), any(models.SuspendedGone))
	if hook.SuspendedAt == nil || *hook.SuspendedAt < began || *hook.SuspendedAt > b.timestamp() {
		t.Errorf("suspended at %v, want it between %v and now", hook.SuspendedAt, began)
	}
	testutil.Equal(t, "failed", b.count(t, agent, models.DeliveryFailed), 4)
	testutil.Equal(t, "pending", b.count(t, agent, models.DeliveryPending), 0)
	testutil.Equal(t, "requests", len(r.requests), 1)

	_, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: 10})
	testutil.Equal(t, "code while suspended", models.CodeOf(err), models.Conflict)
	testutil.Equal(t, "failed as before", b.count(t, agent, models.DeliveryFailed), 4)
	back.Store(true)
	resumed := b.resume(t, agent)
	testutil.Equal(t, "status", resumed.Status, models.WebhookActive)
	testutil.Equal(t, "reason", deref(resumed.SuspendedReason), nil)
	for what, now := range map[string]models.Webhook{"stored": *b.webhook(t, agent), "resumed twice": b.resume(t, agent)} {
		if !reflect.DeepEqual(now, resumed) {
			t.Errorf("%s it is %+v, want %+v", what, now, resumed)
		}
	}
	b.post(t, poster, "research")
	b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)
	testutil.Equal(t, "failed after it resumed", b.count(t, agent, models.DeliveryFailed), 4)

	n, err := b.redeliverFailed(t, agent, models.FailedDeliveryQuery{First: 10})
	testutil.Must(t, err)
	testutil.Equal(t, "redelivered", n, 4)
	b.waitDeliveries(t, agent, models.DeliveryDelivered, 5)
	testutil.Equal(t, "requests", len(r.requests), 6)
}

// TestResume_ignoresStaleOutcome: a 410 that was on its way when the owner resumed
// does not suspend again.
func TestResume_ignoresStaleOutcome(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, _ := b.addSubscriber(t, "https://bot.example/", "research")
	poster := b.addAgent(t)
	b.matchEvent(t, b.post(t, poster, "research"))
	b.matchEvent(t, b.post(t, poster, "research"))
	two, before := b.deliveries(t, agent), b.webhook(t, agent)
	gone := attemptOutcome{status: http.StatusGone, failureReason: "answered 410"}
	testutil.Must(t, b.recordOutcome(t.Context(), before, &two[0], 1, gone))
	suspended := b.webhook(t, agent)
	testutil.Equal(t, "webhook", suspended.Status, models.WebhookSuspended)
	b.clock.advance(1)
	testutil.Must(t, b.recordOutcome(t.Context(), before, &two[1], 1, gone))
	testutil.Equal(t, "suspended since", *b.webhook(t, agent).SuspendedAt, *suspended.SuspendedAt)
	b.resume(t, agent)
	b.setStatus(t, two[1].ID, models.DeliveryPending)
	testutil.Must(t, b.recordOutcome(t.Context(), before, &two[1], 2, gone))
	testutil.Equal(t, "webhook", b.webhook(t, agent).Status, models.WebhookActive)
	testutil.Equal(t, "failing since", deref(b.webhook(t, agent).FailingSince), nil)
}

// TestSuspension_appendsEvents: a suspension is one event of its owner's, written with it, however
// many tries end it at once and are written down again; so is its end, whichever way it
// comes. What is not committed is not told.
func TestSuspension_appendsEvents(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, _ := b.addSubscriber(t, "https://bot.example/", "research")
	poster := b.addAgent(t)
	const tries = 8
	for range tries {
		b.matchEvent(t, b.post(t, poster, "research"))
	}
	gone, before := attemptOutcome{status: http.StatusGone, failureReason: "answered 410"}, b.webhook(t, agent)
	told := func() string {
		var kinds []string
		testutil.Must(t, b.db.Read(t.Context()).Model(&models.Event{}).Where("agent_id = ?", agent).Order("id").Pluck("kind", &kinds).Error)
		return strings.Join(kinds, " ")
	}
	all := b.deliveries(t, agent)
	undo := errors.New("undo")
	err := b.db.Write(t.Context(), func(tx *database.Tx) error {
		end, err := b.applyOutcome(tx, before, all[0].ID, 1, gone)
		if err != nil || !end.suspended {
			t.Errorf("suspended: %t (%v)", end.suspended, err)
		}
		return undo
	})
	testutil.Equal(t, "error", err, undo)
	testutil.Equal(t, "told of what did not happen", told(), "")
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
	testutil.Equal(t, "told", told(), "webhook.suspended")
	for range 2 {
		b.resume(t, agent)
	}
	testutil.Equal(t, "told", told(), "webhook.suspended webhook.resumed")
	again := b.webhook(t, agent)
	b.setStatus(t, all[0].ID, models.DeliveryPending)
	testutil.Must(t, b.recordOutcome(t.Context(), again, &all[0], 2, gone))
	for range 2 {
		b.clock.advance(time.Second)
		b.subscribe(t, agent, "https://bot.example/other")
	}
	testutil.Equal(t, "told", told(), "webhook.suspended webhook.resumed webhook.suspended webhook.resumed")
}

// TestResume_withoutWebhook: there is nothing to resume without a webhook.
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
