package webhooks

import (
	"bytes"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestSubscribe(t *testing.T) {
	t.Parallel()

	t.Run("the secret is returned for a new webhook and stored encrypted", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, secret := b.addSubscriber(t, "https://bot.example/hook", "research")

		testutil.Equal(t, "secret of a changed webhook", b.subscribe(t, agent, "https://bot.example/other"), "")
		testutil.Equal(t, "URL", b.webhook(t, agent).URL, "https://bot.example/other")
		current, err := b.Secret(t.Context(), agent)
		testutil.Must(t, err)
		testutil.Equal(t, "secret", current, secret)
		hint, err := b.SecretHint(t.Context(), agent)
		testutil.Must(t, err)
		testutil.Equal(t, "hint", hint, secret[:10])
		var row models.Secret
		testutil.Must(t, b.db.Read(t.Context()).Take(&row).Error)
		testutil.Equal(t, "row contains the plain secret", bytes.Contains(row.Encrypted, []byte(secret[6:])), false)
	})

	t.Run("an existing secret does not change", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent := b.addAgent(t, "research")
		var existing string
		b.write(t, func(tx *database.Tx) (err error) {
			existing, err = b.EnsureSecret(tx, agent)
			return err
		})
		testutil.Equal(t, "secret", b.subscribe(t, agent, "https://bot.example/hook"), existing)
	})

	t.Run("without a webhook Get returns NOT_FOUND, and Secret is empty", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
		b.write(t, func(tx *database.Tx) error { return b.Unsubscribe(tx, agent) })

		_, err := b.Get(t.Context(), agent)
		testutil.Equal(t, "code", models.CodeOf(err), models.NotFound)
		secret, err := b.Secret(t.Context(), b.addAgent(t))
		testutil.Must(t, err)
		testutil.Equal(t, "secret", secret, "")
	})
}
