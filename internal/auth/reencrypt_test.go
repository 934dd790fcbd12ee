package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// secretsTable are those of the store's agents, as webhooks keeps them.
func secretsTable() auth.EncryptedTable {
	return auth.EncryptedTable{Name: "secrets", KeyColumns: []string{"agent_id"}, Columns: []string{"encrypted", "previous"}, Label: func(key []string) string { return key[0] }}
}

// encryptSecrets gives so many agents a secret each, that box seals; every third has an old
// one too.
func (b *bundle) encryptSecrets(box *auth.Cipher, agents int) {
	b.t.Helper()
	b.write(func(tx *database.Tx) error {
		for i := range agents {
			id := fmt.Sprintf("agent-%04d", i)
			row := models.Secret{AgentID: id, Encrypted: box.Encrypt([]byte("secret of "+id), id), Hint: "whsec_"}
			if i%3 == 0 {
				row.Previous = box.Encrypt([]byte("old of "+id), id)
			}
			agent := models.Agent{ID: id, Name: "Agent", Capabilities: []string{}, PricePerTask: 10}
			if err := errors.Join(tx.Create(&agent).Error, tx.Create(&row).Error); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestReencrypt: what one key sealed is sealed with another, more than a page of it and
// while some of it changes; what is done already stays as it is.
func TestReencrypt(t *testing.T) {
	t.Parallel()
	const agents = 1100
	b := newBundle(t)
	old, fresh := newCipher(t, "the old secret key"), newCipher(t, "the new secret key")
	both, err := auth.NewCipher([]byte("the new secret key"), []byte("the old secret key"))
	testutil.Must(t, err)
	b.encryptSecrets(old, agents)
	var changing sync.WaitGroup
	changing.Go(func() { // as an agent that has its secret replaced
		for i := range agents / 10 {
			id := fmt.Sprintf("agent-%04d", 10*i)
			testutil.Must(t, b.db.Write(t.Context(), func(tx *database.Tx) error {
				return tx.Model(&models.Secret{AgentID: id}).Update("encrypted", both.Encrypt([]byte("replaced"), id)).Error
			}))
		}
	})
	var done auth.ReencryptProgress
	testutil.Must(t, auth.Reencrypt(t.Context(), b.db, both, secretsTable(), func(now auth.ReencryptProgress) { done = now }))
	changing.Wait()
	if done.Table != "secrets" || done.Rows != agents || done.Changed < agents*9/10 {
		t.Errorf("told of %+v", done)
	}
	var rows []models.Secret
	testutil.Must(t, b.db.Read(t.Context()).Find(&rows).Error)
	for _, row := range rows {
		plain, err := fresh.Decrypt(row.Encrypted, row.AgentID)
		if err != nil || string(plain) != "secret of "+row.AgentID && string(plain) != "replaced" {
			t.Errorf("the secret of %s is %q (%v)", row.AgentID, plain, err)
		}
		if row.Previous == nil {
			continue
		}
		if plain, err := fresh.Decrypt(row.Previous, row.AgentID); err != nil || string(plain) != "old of "+row.AgentID {
			t.Errorf("the old secret of %s is %q (%v)", row.AgentID, plain, err)
		}
	}
	testutil.Must(t, auth.Reencrypt(t.Context(), b.db, both, secretsTable(), func(now auth.ReencryptProgress) { done = now }))
	if done.Rows != agents || done.Changed != 0 {
		t.Errorf("the second time it is told of %+v", done)
	}
}

// TestReencrypt_unknownKey what neither key opens, names it, and shows nothing of it.
func TestReencrypt_unknownKey(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.encryptSecrets(newCipher(t, "a key that is lost"), 1)
	both, err := auth.NewCipher([]byte("the new secret key"), []byte("the old secret key"))
	testutil.Must(t, err)
	before := b.storedSecrets()
	err = auth.Reencrypt(t.Context(), b.db, both, secretsTable(), func(auth.ReencryptProgress) { t.Error("told of a page") })
	if err == nil || !strings.Contains(err.Error(), "encrypted of agent-0000") || strings.Contains(err.Error(), "secret of") {
		t.Errorf("got %v", err)
	}
	if b.storedSecrets() != before {
		t.Error("something was changed")
	}
}

func (b *bundle) storedSecrets() (all string) {
	b.t.Helper()
	var rows []models.Secret
	testutil.Must(b.t, b.db.Read(b.t.Context()).Find(&rows).Error)
	return fmt.Sprint(rows)
}

// TestCipher_twoKeys opens with both and seals with the first.
func TestCipher_twoKeys(t *testing.T) {
	t.Parallel()
	old, fresh := newCipher(t, "the old secret key"), newCipher(t, "the new secret key")
	both, err := auth.NewCipher([]byte("the new secret key"), []byte("the old secret key"))
	testutil.Must(t, err)
	for name, sealed := range map[string][]byte{"the old": old.Encrypt([]byte("plain"), "label"), "the new": fresh.Encrypt([]byte("plain"), "label")} {
		if plain, err := both.Decrypt(sealed, "label"); err != nil || string(plain) != "plain" {
			t.Errorf("%s: %q (%v)", name, plain, err)
		}
		if plain, err := both.Decrypt(sealed, "another"); err == nil {
			t.Errorf("%s opens as %q under another label", name, plain)
		}
	}
	sealed := both.Encrypt([]byte("plain"), "label")
	if _, err := fresh.Decrypt(sealed, "label"); err != nil {
		t.Errorf("the new key alone: %v", err)
	}
	if plain, err := old.Decrypt(sealed, "label"); err == nil {
		t.Errorf("the old key opens %q", plain)
	}
	if _, err := auth.NewCipher([]byte("the new secret key"), []byte("short")); err == nil {
		t.Error("a short other key is taken")
	}
}
