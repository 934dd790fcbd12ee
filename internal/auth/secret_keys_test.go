package auth_test

import (
	"errors"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// claim claims the key of c for the secrets of a test and returns the error without its
// context.
func (b *bundle) claim(c *auth.Cipher, giveUp func(*database.Tx, int64) error) error {
	b.t.Helper()
	err := auth.ClaimKey(b.t.Context(), b.db, c, []auth.EncryptedTable{secretsTable(), previousSecretsTable()}, giveUp)
	if err != nil && !errors.Is(err, auth.ErrWrongKey) {
		b.t.Fatal(err)
	}
	return err
}

// bothCipher returns a cipher that encrypts with one key and also decrypts with another.
func bothCipher(t *testing.T, current, other string) *auth.Cipher {
	t.Helper()
	c, err := auth.NewCipher([]byte(current), []byte(other))
	testutil.Must(t, err)
	return c
}

// TestClaimKey follows a database from its first start over a rekey: it accepts exactly
// the keys that open all its secrets.
func TestClaimKey(t *testing.T) {
	t.Parallel()
	const agents = 600 // more than a page
	const first, second, third = "the first secret key", "the second secret key", "the third secret key"
	b := newBundle(t)
	want := func(step string, wantErr bool, c *auth.Cipher) {
		t.Helper()
		if err := b.claim(c, nil); (err != nil) != wantErr {
			t.Errorf("%s: got %v", step, err)
		}
	}
	want("a new database", false, newCipher(t, third))
	want("another key before the first secret", services.OnPostgres(), newCipher(t, first)) // another replica can be about to use its key
	b.encryptSecrets(newCipher(t, first), agents)
	b.write(func(tx *database.Tx) error { return tx.Exec("DELETE FROM secret_keys").Error }) // as made by an older version
	want("an older database, wrong key", true, newCipher(t, second))
	want("an older database, right key", false, newCipher(t, first))
	want("the same key again", false, newCipher(t, first))
	want("a wrong key", true, newCipher(t, second))
	want("two wrong keys", true, bothCipher(t, second, third))
	want("the right key and a future one", false, bothCipher(t, first, second))
	want("the right key alone after that", false, newCipher(t, first))

	both := bothCipher(t, second, first)
	want("the keys exchanged", false, both)
	want("the old key alone, while the new one can be in use", true, newCipher(t, first))
	want("the new key alone, before everything is re-encrypted", true, newCipher(t, second))
	for _, table := range []auth.EncryptedTable{secretsTable(), previousSecretsTable()} {
		testutil.Must(t, auth.Reencrypt(t.Context(), b.db, both, table, func(auth.ReencryptProgress) {}))
	}
	b.write(func(tx *database.Tx) error { return auth.KeepOnlyCurrentKey(tx, both) })
	want("the new key alone", false, newCipher(t, second))
	want("the old key alone", true, newCipher(t, first))
}

// TestClaimKey_olderDatabaseDuringRekey checks that a database that an older version
// re-encrypted partly needs both keys.
func TestClaimKey_olderDatabaseDuringRekey(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.encryptSecrets(newCipher(t, "the first secret key"), 2)
	second := newCipher(t, "the second secret key")
	b.write(func(tx *database.Tx) error {
		return tx.Model(&models.Secret{AgentID: "agent-0001"}).Update("encrypted", second.Encrypt([]byte("new"), "agent-0001")).Error
	})
	testutil.Must(t, b.claim(bothCipher(t, "the first secret key", "the second secret key"), nil))
	if b.claim(newCipher(t, "the first secret key"), nil) == nil || b.claim(second, nil) == nil {
		t.Error("one key was enough")
	}
}

// TestClaimKey_giveUp checks that only the values that no key opens are given up, in one
// transaction, and that a rekey works afterwards.
func TestClaimKey_giveUp(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	lost, kept := newCipher(t, "a key that is lost"), newCipher(t, "the new secret key")
	b.encryptSecrets(lost, 3)
	testutil.Must(t, b.claim(lost, nil))
	b.write(func(tx *database.Tx) error {
		return tx.Model(&models.Secret{AgentID: "agent-0002"}).Update("encrypted", kept.Encrypt([]byte("readable"), "agent-0002")).Error
	})
	before := b.storedSecrets()
	failed := errors.New("no") //nolint:err113 // only for this test
	err := auth.ClaimKey(t.Context(), b.db, kept, []auth.EncryptedTable{secretsTable(), previousSecretsTable()}, func(*database.Tx, int64) error { return failed })
	if !errors.Is(err, failed) || b.storedSecrets() != before || b.claim(kept, nil) == nil {
		t.Errorf("after a failed transaction: %v", err)
	}
	var count int64
	testutil.Must(t, b.claim(kept, func(_ *database.Tx, lost int64) error { count = lost; return nil }))
	testutil.Equal(t, "lost values", count, 4) // agent-0000 with its previous secrets, agent-0001
	var rows []models.Secret
	testutil.Must(t, b.db.Read(t.Context()).Order("agent_id").Find(&rows).Error)
	var previous []models.PreviousSecret
	testutil.Must(t, b.db.Read(t.Context()).Find(&previous).Error)
	if !auth.IsLost(rows[0].Encrypted) || !auth.IsLost(rows[1].Encrypted) || auth.IsLost(rows[2].Encrypted) ||
		len(previous) != 2 || !auth.IsLost(previous[0].Encrypted) || !auth.IsLost(previous[1].Encrypted) {
		t.Errorf("got %v and %v", rows, previous)
	}
	testutil.Must(t, b.claim(kept, func(*database.Tx, int64) error { t.Error("given up twice"); return nil }))
	if b.claim(lost, nil) == nil {
		t.Error("the lost key is accepted")
	}
	newer := bothCipher(t, "an even newer secret key", "the new secret key")
	testutil.Must(t, auth.Reencrypt(t.Context(), b.db, newer, secretsTable(), func(auth.ReencryptProgress) {}))
}
