package webhooks

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestSubscribe(t *testing.T) {
	t.Parallel()

	t.Run("the secret is shown when the webhook is new, and only sealed is it kept", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, secret := b.addSubscriber(t, "https://bot.example/hook", "research")

		testutil.Equal(t, "secret when it is changed", b.subscribe(t, agent, "https://bot.example/other"), "")
		testutil.Equal(t, "address", b.webhook(t, agent).URL, "https://bot.example/other")
		current, err := b.Secret(t.Context(), agent)
		testutil.Must(t, err)
		testutil.Equal(t, "secret", current, secret)
		hint, err := b.SecretHint(t.Context(), agent)
		testutil.Must(t, err)
		testutil.Equal(t, "hint", hint, secret[:10])
		var kept models.Secret
		testutil.Must(t, b.db.Read(t.Context()).Take(&kept).Error)
		testutil.Equal(t, "the secret is in its row", bytes.Contains(kept.Encrypted, []byte(secret[6:])), false)
	})

	t.Run("an agent that has a secret for its endpoint keeps it", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent := b.addAgent(t, "research")
		var minted string
		b.write(t, func(tx *database.Tx) (err error) {
			minted, err = b.EnsureSecret(tx, agent)
			return err
		})
		testutil.Equal(t, "secret", b.subscribe(t, agent, "https://bot.example/hook"), minted)
	})

	t.Run("without a webhook there is none to get, and no secret", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
		b.write(t, func(tx *database.Tx) error { return b.Unsubscribe(tx, agent) })

		_, err := b.Get(t.Context(), agent)
		testutil.Equal(t, "code", models.CodeOf(err), models.NotFound)
		secret, err := b.Secret(t.Context(), b.addAgent(t))
		testutil.Must(t, err)
		testutil.Equal(t, "secret of an agent without one", secret, "")
	})
}

func TestRotateSecret(t *testing.T) {
	t.Parallel()

	t.Run("both secrets sign until the overlap ends", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, old := b.addSubscriber(t, r.URL, "research")
		poster := b.addAgent(t)
		b.run(t)
		fresh := b.rotate(t, agent, time.Hour)

		b.post(t, poster, "research")
		got := r.next(t)
		testutil.Equal(t, "documented header", got.header.Get("X-AgentMarket-Signature"), outbound.Sign(old, got.body))
		testutil.Equal(t, "standard header", got.header.Get("webhook-signature"), standardSignature(t, fresh, got)+" "+standardSignature(t, old, got))

		b.clock.advance(time.Hour)
		b.post(t, poster, "research")
		got = r.next(t)
		testutil.Equal(t, "documented header", got.header.Get("X-AgentMarket-Signature"), outbound.Sign(fresh, got.body))
		testutil.Equal(t, "standard header", got.header.Get("webhook-signature"), standardSignature(t, fresh, got))
	})

	t.Run("without an overlap the old secret ends at once", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
		b.rotate(t, agent, time.Hour)
		fresh := b.rotate(t, agent, 0)

		current, old, err := b.signingSecrets(t.Context(), agent)
		testutil.Must(t, err)
		testutil.Equal(t, "current", current, fresh)
		testutil.Equal(t, "old", old, "")
	})

	t.Run("what cannot be rotated", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent := b.addAgent(t)
		err := b.db.Write(t.Context(), func(tx *database.Tx) error {
			_, _, err := b.RotateSecret(tx, agent, 0)
			return err
		})
		testutil.Equal(t, "without a webhook", models.CodeOf(err), models.Conflict)
	})
}

func TestRedeliver(t *testing.T) {
	t.Parallel()

	t.Run("a delivered one is sent again under its id", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, _ := b.addSubscriber(t, r.URL, "research")
		b.run(t)
		b.post(t, b.addAgent(t), "research")
		d := b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)[0]
		r.next(t)

		again, err := b.redeliver(t, agent, d.ID)
		testutil.Must(t, err)
		testutil.Equal(t, "status", again.Status, models.DeliveryPending)
		got := r.next(t)
		testutil.Equal(t, "delivery", got.header.Get("X-AgentMarket-Delivery"), d.ID)
		testutil.Equal(t, "attempt", got.header.Get("X-AgentMarket-Attempt"), "2")
		b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)
	})

	t.Run("one that waits for hours is sent now, once", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback(), retries: []time.Duration{time.Hour}})
		agent, _ := b.addSubscriber(t, r.URL, "research")
		event := b.post(t, b.addAgent(t), "research")
		b.matchEvent(t, event)
		d := b.deliveries(t, agent)[0]
		testutil.Must(t, b.recordOutcome(t.Context(), b.webhook(t, agent), &d, 1, attemptOutcome{failureReason: "answered 500", status: 500}))
		testutil.Equal(t, "jobs in the retry queue", b.jobsInQueue(t, retryQueue), 1)
		b.run(t)

		_, err := b.redeliver(t, agent, d.ID)
		testutil.Must(t, err)
		d = b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)[0]
		testutil.Equal(t, "attempts", d.Attempts, 2)
		testutil.Equal(t, "requests", len(r.requests), 1)
	})

	t.Run("what was missed while suspended can be had afterwards", func(t *testing.T) {
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

	t.Run("another's delivery does not exist", func(t *testing.T) {
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

func TestDeliveries(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
	poster := b.addAgent(t)
	for range 3 {
		b.matchEvent(t, b.post(t, poster, "research"))
	}

	first, err := b.Deliveries(t.Context(), agent, nil, 2, "")
	testutil.Must(t, err)
	testutil.Equal(t, "page", len(first), 2)
	testutil.Equal(t, "newest", first[0].EventID, 3)
	rest, err := b.Deliveries(t.Context(), agent, []models.DeliveryStatus{models.DeliveryPending}, 2, first[1].ID)
	testutil.Must(t, err)
	testutil.Equal(t, "rest", len(rest), 1)
	testutil.Equal(t, "oldest", rest[0].EventID, 1)
	none, err := b.Deliveries(t.Context(), agent, []models.DeliveryStatus{models.DeliveryFailed}, 2, "")
	testutil.Must(t, err)
	testutil.Equal(t, "failed ones", len(none), 0)
}

func TestMatch(t *testing.T) {
	t.Parallel()

	t.Run("agents that can do some of it are told, the poster is not", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		some, _ := b.addSubscriber(t, "https://some.example/", "research", "coding")
		none, _ := b.addSubscriber(t, "https://none.example/", "coding")
		poster, _ := b.addSubscriber(t, "https://poster.example/", "research")
		b.addAgent(t, "research")

		b.matchEvent(t, b.post(t, poster, "research", "summarization"))
		testutil.Equal(t, "overlap", len(b.deliveries(t, some)), 1)
		testutil.Equal(t, "no overlap", len(b.deliveries(t, none)), 0)
		testutil.Equal(t, "poster", len(b.deliveries(t, poster)), 0)
		testutil.Equal(t, "jobs", b.jobsInQueue(t, firstAttemptQueue), 1)
	})

	t.Run("a task that asks for nothing suits nobody", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, _ := b.addSubscriber(t, "https://bot.example/", "research")
		b.matchEvent(t, b.post(t, b.addAgent(t)))
		testutil.Equal(t, "deliveries", len(b.deliveries(t, agent)), 0)
	})

	t.Run("many agents are served page by page", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		const many = 2*matchPageSize + 1
		b.write(t, func(tx *database.Tx) error {
			for range many {
				id := uuid.Must(uuid.NewV7()).String()
				for _, row := range []any{
					&models.Agent{ID: id, Name: "bot", Capabilities: []string{"research"}, PricePerTask: 10},
					&models.AgentCapability{AgentID: id, Capability: "research"},
					&models.Webhook{AgentID: id, URL: "https://bot.example/", Status: models.WebhookActive, Events: []models.WebhookEvent{}},
				} {
					if err := tx.Create(row).Error; err != nil {
						return err
					}
				}
			}
			return nil
		})
		b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
		testutil.Equal(t, "jobs", b.jobsInQueue(t, firstAttemptQueue), many)
	})
}

func TestNotify(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	poster := b.addAgent(t)

	b.post(t, poster, "research")
	testutil.Equal(t, "jobs while nobody listens", b.jobsInQueue(t, matchQueue), 0)
	b.addSubscriber(t, "https://bot.example/", "research")
	b.post(t, poster, "research")
	testutil.Equal(t, "jobs for a posted task", b.jobsInQueue(t, matchQueue), 1)
	b.write(t, func(tx *database.Tx) error { return b.Notify(tx, &models.Event{Seq: 1, Kind: models.TaskReleased}) })
	testutil.Equal(t, "jobs for other kinds", b.jobsInQueue(t, matchQueue), 1)
}

func (b *bundle) rotate(t *testing.T, agentID string, overlap time.Duration) (secret string) {
	t.Helper()
	b.write(t, func(tx *database.Tx) (err error) {
		_, secret, err = b.RotateSecret(tx, agentID, overlap)
		return err
	})
	return secret
}

func (b *bundle) redeliver(t *testing.T, agentID, id string) (d models.Delivery, err error) {
	t.Helper()
	err = b.db.Write(t.Context(), func(tx *database.Tx) (err error) {
		d, err = b.Redeliver(tx, agentID, id)
		return err
	})
	return d, err
}
