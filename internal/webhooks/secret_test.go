package webhooks

import (
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestRotateSecret(t *testing.T) {
	t.Parallel()

	t.Run("both secrets sign until the overlap ends", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, previous := b.addSubscriber(t, r.URL, "research")
		poster := b.addAgent(t)
		b.run(t)
		current := b.rotate(t, agent, time.Hour)

		b.post(t, poster, "research")
		got := r.next(t)
		testutil.Equal(t, "X-AgentMarket-Signature", got.header.Get("X-AgentMarket-Signature"), outbound.Sign(previous, got.body))
		testutil.Equal(t, "webhook-signature", got.header.Get("webhook-signature"), standardSignature(t, current, got)+" "+standardSignature(t, previous, got))

		b.clock.advance(time.Hour)
		b.post(t, poster, "research")
		got = r.next(t)
		testutil.Equal(t, "X-AgentMarket-Signature", got.header.Get("X-AgentMarket-Signature"), outbound.Sign(current, got.body))
		testutil.Equal(t, "webhook-signature", got.header.Get("webhook-signature"), standardSignature(t, current, got))
	})

	t.Run("without an overlap the previous secret expires at once", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
		b.rotate(t, agent, time.Hour)
		rotated := b.rotate(t, agent, 0)

		current, previous, err := b.signingSecrets(t.Context(), agent)
		testutil.Must(t, err)
		testutil.Equal(t, "current", current, rotated)
		testutil.Equal(t, "previous", previous, "")
	})

	t.Run("without a webhook rotation is a conflict", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent := b.addAgent(t)
		err := b.db.Write(t.Context(), func(tx *database.Tx) error {
			_, _, err := b.RotateSecret(tx, agent, 0)
			return err
		})
		testutil.Equal(t, "code", models.CodeOf(err), models.Conflict)
	})
}

func (b *bundle) rotate(t *testing.T, agentID string, overlap time.Duration) (secret string) {
	t.Helper()
	b.write(t, func(tx *database.Tx) (err error) {
		_, secret, err = b.RotateSecret(tx, agentID, overlap)
		return err
	})
	return secret
}
