package webhooks

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
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

		b.wantSecrets(t, agent, rotated)
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

// TestRotateSecret_duringOverlap: every replaced secret signs until its own overlap ends,
// whatever the overlap of a later rotation.
func TestRotateSecret_duringOverlap(t *testing.T) {
	t.Parallel()

	t.Run("the standard header has all signatures, the documented one the oldest", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, nil)
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, first := b.addSubscriber(t, r.URL, "research")
		poster := b.addAgent(t)
		b.run(t)
		secrets := []string{first}
		for range maxPreviousSecrets {
			secrets = append([]string{b.rotate(t, agent, time.Hour)}, secrets...)
		}
		b.post(t, poster, "research")
		got := r.next(t)
		testutil.Equal(t, "X-AgentMarket-Signature", got.header.Get("X-AgentMarket-Signature"), outbound.Sign(first, got.body))
		var want []string
		for _, secret := range secrets {
			want = append(want, standardSignature(t, secret, got))
		}
		testutil.Equal(t, "webhook-signature", got.header.Get("webhook-signature"), strings.Join(want, " "))
		stored := b.attempts(t, b.waitDeliveries(t, agent, models.DeliveryDelivered, 1)[0].ID)[0].RequestHeaders
		if !slices.Contains(stored, models.Header{Name: "webhook-signature", Value: strings.Join(want, " ")}) {
			t.Errorf("the stored headers are %v", stored)
		}
	})

	t.Run("each ends on its own", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{clock: &clock{fixed: time.Unix(1_800_000_000, 0)}})
		agent, first := b.addSubscriber(t, "https://bot.example/hook", "research")
		second := b.rotate(t, agent, time.Hour)
		b.clock.advance(20 * time.Minute)
		third := b.rotate(t, agent, 24*time.Hour)
		fourth := b.rotate(t, agent, time.Minute)
		b.wantSecrets(t, agent, fourth, third, second, first)
		b.clock.advance(time.Minute)
		b.wantSecrets(t, agent, fourth, second, first)
		b.clock.advance(39*time.Minute - time.Microsecond)
		b.wantSecrets(t, agent, fourth, second, first)
		b.clock.advance(time.Microsecond)
		b.wantSecrets(t, agent, fourth, second)
		b.clock.advance(24*time.Hour - 40*time.Minute)
		b.wantSecrets(t, agent, fourth)
	})

	t.Run("a secret that was given up does not stop the others", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
		second := b.rotate(t, agent, time.Hour)
		third := b.rotate(t, agent, time.Hour)
		b.write(t, func(tx *database.Tx) error {
			var row models.PreviousSecret
			if err := tx.Where("agent_id = ?", agent).Order("id").Take(&row).Error; err != nil {
				return err
			}
			return tx.Model(&row).Update("encrypted", []byte{0}).Error
		})
		b.wantSecrets(t, agent, third, second)
	})
}

// TestRotateSecret_limit: a rotation that would make too many secrets sign changes
// nothing and says when the next is possible. Without an overlap it is always possible.
func TestRotateSecret_limit(t *testing.T) {
	t.Parallel()
	b := open(t, settings{clock: &clock{fixed: time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)}})
	agent, first := b.addSubscriber(t, "https://bot.example/hook", "research")
	other, otherSecret := b.addSubscriber(t, "https://other.example/hook", "research")
	secrets := []string{first}
	for i := range maxPreviousSecrets {
		secrets = append([]string{b.rotate(t, agent, time.Hour-time.Duration(i)*time.Minute)}, secrets...)
	}
	_, err := b.tryRotate(t, agent, time.Minute)
	testutil.Equal(t, "code", models.CodeOf(err), models.Conflict)
	testutil.Equal(t, "error", err.Error(), "5 replaced secrets still sign, the first of them until 2026-03-13T12:56:00Z; "+
		"rotate after that, or end all of them with an overlap of 0")
	b.wantSecrets(t, agent, secrets...)
	newOther := b.rotate(t, other, time.Hour)
	b.wantSecrets(t, other, newOther, otherSecret)

	b.clock.advance(56 * time.Minute)
	next := b.rotate(t, agent, time.Hour)
	b.wantSecrets(t, agent, append([]string{next}, slices.Delete(slices.Clone(secrets), 1, 2)...)...)
	last := b.rotate(t, agent, 0)
	b.wantSecrets(t, agent, last)
	b.wantSecrets(t, other, newOther, otherSecret)
}

// TestRotateSecret_concurrent: after concurrent rotations all secrets sign, of which one is
// current. Prune runs at the same time.
func TestRotateSecret_concurrent(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, first := b.addSubscriber(t, "https://bot.example/hook", "research")
	secrets := make([]string, 2*maxPreviousSecrets)
	errs := make([]error, len(secrets))
	var group sync.WaitGroup
	for i := range secrets {
		group.Go(func() { secrets[i], errs[i] = b.tryRotate(t, agent, time.Hour) })
		group.Go(func() {
			if err := b.Prune(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	want := []string{first}
	for i, err := range errs {
		switch {
		case err == nil:
			want = append(want, secrets[i])
		case models.CodeOf(err) != models.Conflict:
			t.Error(err)
		}
	}
	got, err := b.signingSecrets(t.Context(), agent)
	testutil.Must(t, err)
	testutil.Equal(t, "secrets", len(got), maxPreviousSecrets+1)
	testutil.Equal(t, "oldest secret", got[len(got)-1], first)
	slices.Sort(want)
	slices.Sort(got)
	testutil.Equal(t, "secrets", strings.Join(got, " "), strings.Join(want, " "))
}

// TestRotateSecret_rekey: a rotation while the secrets are re-encrypted leaves no secret
// that needs the old key.
func TestRotateSecret_rekey(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, first := b.addSubscriber(t, "https://bot.example/hook", "research")
	both, err := auth.NewCipher([]byte("another secret key"), []byte("sixteen bytes or more"))
	testutil.Must(t, err)
	newer, err := auth.NewCipher([]byte("another secret key"))
	testutil.Must(t, err)
	b.cipher = both
	secrets := []string{first}
	var rotating sync.WaitGroup
	rotating.Go(func() {
		for range maxPreviousSecrets {
			secrets = append([]string{b.rotate(t, agent, time.Hour)}, secrets...)
		}
	})
	for _, table := range EncryptedTables() {
		testutil.Must(t, auth.Reencrypt(t.Context(), b.db, both, table, func(auth.ReencryptProgress) {}))
	}
	rotating.Wait()
	b.cipher = newer
	b.wantSecrets(t, agent, secrets...)
}

// TestPrune_secrets: Prune deletes the replaced secrets that sign no more, also without
// a retention of deliveries.
func TestPrune_secrets(t *testing.T) {
	t.Parallel()
	b := open(t, settings{clock: &clock{fixed: time.Unix(1_800_000_000, 0)}})
	const agents = prunePageSize + 20
	var agent string
	for i := range agents {
		agent, _ = b.addSubscriber(t, fmt.Sprintf("https://bot%d.example/hook", i))
		b.rotate(t, agent, time.Minute)
	}
	kept := b.rotate(t, agent, time.Minute)
	current := b.rotate(t, agent, time.Hour)
	b.clock.advance(time.Minute)
	testutil.Must(t, b.Prune(t.Context()))
	var left int64
	testutil.Must(t, b.db.Read(t.Context()).Model(&models.PreviousSecret{}).Count(&left).Error)
	testutil.Equal(t, "secrets left", left, 1)
	b.wantSecrets(t, agent, current, kept)
}

// wantSecrets checks the secrets that sign, from the newest to the oldest.
func (b *bundle) wantSecrets(t *testing.T, agentID string, want ...string) {
	t.Helper()
	got, err := b.signingSecrets(t.Context(), agentID)
	testutil.Must(t, err)
	testutil.Equal(t, "secrets", strings.Join(got, " "), strings.Join(want, " "))
}

func (b *bundle) rotate(t *testing.T, agentID string, overlap time.Duration) (secret string) {
	t.Helper()
	secret, err := b.tryRotate(t, agentID, overlap)
	testutil.Must(t, err)
	return secret
}

// tryRotate rotates the secret of an agent, which it locks like the market does.
func (b *bundle) tryRotate(t *testing.T, agentID string, overlap time.Duration) (secret string, err error) {
	t.Helper()
	err = b.db.Write(t.Context(), func(tx *database.Tx) (err error) {
		if err = tx.ForUpdate().Take(&models.Agent{}, "id = ?", agentID).Error; err != nil {
			return err
		}
		_, secret, err = b.RotateSecret(tx, agentID, overlap)
		return err
	})
	return secret, err
}
