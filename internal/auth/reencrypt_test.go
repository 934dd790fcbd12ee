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

// secretsTable is the table of webhook secrets.
func secretsTable() auth.EncryptedTable {
	return auth.EncryptedTable{Name: "secrets", KeyColumns: []string{"agent_id"}, Columns: []string{"encrypted"}, Label: func(key []string) string { return key[0] }}
}

// previousSecretsTable is the table of replaced webhook secrets, whose key has two columns.
func previousSecretsTable() auth.EncryptedTable {
	table := secretsTable()
	table.Name, table.KeyColumns = "previous_secrets", []string{"agent_id", "id"}
	return table
}

// encryptSecrets creates agents with a secret encrypted by c. Every third agent also
// has two previous secrets.
func (b *bundle) encryptSecrets(c *auth.Cipher, agents int) {
	b.t.Helper()
	b.write(func(tx *database.Tx) error {
		for i := range agents {
			id := fmt.Sprintf("agent-%04d", i)
			row := models.Secret{AgentID: id, Encrypted: c.Encrypt([]byte("secret of "+id), id), Hint: "whsec_"}
			agent := models.Agent{ID: id, Name: "Agent", Capabilities: []string{}, PricePerTask: 10}
			if err := errors.Join(tx.Create(&agent).Error, tx.Create(&row).Error); err != nil {
				return err
			}
			if i%3 != 0 {
				continue
			}
			for _, number := range []string{"1", "2"} {
				previous := models.PreviousSecret{AgentID: id, ID: number, Encrypted: c.Encrypt([]byte("previous "+number+" of "+id), id), SignsUntil: 1}
				if err := tx.Create(&previous).Error; err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// TestReencrypt re-encrypts more than one batch while some rows change. A second run
// changes nothing.
func TestReencrypt(t *testing.T) {
	t.Parallel()
	const agents = 1100
	b := newBundle(t)
	oldCipher, newer := newCipher(t, "the old secret key"), newCipher(t, "the new secret key")
	both, err := auth.NewCipher([]byte("the new secret key"), []byte("the old secret key"))
	testutil.Must(t, err)
	b.encryptSecrets(oldCipher, agents)
	var changing sync.WaitGroup
	changing.Go(func() { // agents replace their secrets
		for i := range agents / 10 {
			id := fmt.Sprintf("agent-%04d", 10*i)
			testutil.Must(t, b.db.Write(t.Context(), func(tx *database.Tx) error {
				return tx.Model(&models.Secret{AgentID: id}).Update("encrypted", both.Encrypt([]byte("replaced"), id)).Error
			}))
		}
	})
	var done auth.ReencryptProgress
	testutil.Must(t, auth.Reencrypt(t.Context(), b.db, both, secretsTable(), func(p auth.ReencryptProgress) { done = p }))
	changing.Wait()
	if done.Table != "secrets" || done.Rows != agents || done.Changed < agents*9/10 {
		t.Errorf("progress is %+v", done)
	}
	var rows []models.Secret
	testutil.Must(t, b.db.Read(t.Context()).Find(&rows).Error)
	for _, row := range rows {
		plain, err := newer.Decrypt(row.Encrypted, row.AgentID)
		if err != nil || string(plain) != "secret of "+row.AgentID && string(plain) != "replaced" {
			t.Errorf("the secret of %s is %q (%v)", row.AgentID, plain, err)
		}
	}
	testutil.Must(t, auth.Reencrypt(t.Context(), b.db, both, secretsTable(), func(p auth.ReencryptProgress) { done = p }))
	if done.Rows != agents || done.Changed != 0 {
		t.Errorf("progress of the second run is %+v", done)
	}
}

// TestReencrypt_twoKeyColumns re-encrypts more than one batch of a table whose key has
// two columns; a batch ends between two rows of an agent.
func TestReencrypt_twoKeyColumns(t *testing.T) {
	t.Parallel()
	const agents, previous = 1000, 668
	b := newBundle(t)
	newer := newCipher(t, "the new secret key")
	b.encryptSecrets(newCipher(t, "the old secret key"), agents)
	both := bothCipher(t, "the new secret key", "the old secret key")
	b.write(func(tx *database.Tx) error { // so that an odd number of rows precedes the end of a batch
		return tx.Delete(&models.PreviousSecret{AgentID: "agent-0000", ID: "1"}).Error
	})
	var done auth.ReencryptProgress
	testutil.Must(t, auth.Reencrypt(t.Context(), b.db, both, previousSecretsTable(), func(p auth.ReencryptProgress) { done = p }))
	testutil.Equal(t, "progress", done, auth.ReencryptProgress{Table: "previous_secrets", Rows: previous - 1, Total: previous - 1, Changed: previous - 1})
	var rows []models.PreviousSecret
	testutil.Must(t, b.db.Read(t.Context()).Find(&rows).Error)
	for _, row := range rows {
		if plain, err := newer.Decrypt(row.Encrypted, row.AgentID); err != nil || string(plain) != "previous "+row.ID+" of "+row.AgentID {
			t.Errorf("the previous secret %s of %s is %q (%v)", row.ID, row.AgentID, plain, err)
		}
	}
}

// TestReencrypt_unknownKey checks that the error names a value that neither key
// decrypts, and does not contain its plain text.
func TestReencrypt_unknownKey(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.encryptSecrets(newCipher(t, "a key that is lost"), 1)
	both, err := auth.NewCipher([]byte("the new secret key"), []byte("the old secret key"))
	testutil.Must(t, err)
	before := b.storedSecrets()
	err = auth.Reencrypt(t.Context(), b.db, both, secretsTable(), func(auth.ReencryptProgress) { t.Error("a batch succeeded") })
	if err == nil || !strings.Contains(err.Error(), "encrypted of agent-0000") || strings.Contains(err.Error(), "secret of") {
		t.Errorf("got %v", err)
	}
	if b.storedSecrets() != before {
		t.Error("the secrets have changed")
	}
}

func (b *bundle) storedSecrets() (all string) {
	b.t.Helper()
	var rows []models.Secret
	testutil.Must(b.t, b.db.Read(b.t.Context()).Find(&rows).Error)
	return fmt.Sprint(rows)
}

// TestCipher_twoKeys decrypts with both keys and encrypts with the first.
func TestCipher_twoKeys(t *testing.T) {
	t.Parallel()
	oldCipher, newer := newCipher(t, "the old secret key"), newCipher(t, "the new secret key")
	both, err := auth.NewCipher([]byte("the new secret key"), []byte("the old secret key"))
	testutil.Must(t, err)
	for name, encrypted := range map[string][]byte{"the old key": oldCipher.Encrypt([]byte("plain"), "label"), "the new key": newer.Encrypt([]byte("plain"), "label")} {
		if plain, err := both.Decrypt(encrypted, "label"); err != nil || string(plain) != "plain" {
			t.Errorf("%s: %q (%v)", name, plain, err)
		}
		if plain, err := both.Decrypt(encrypted, "another"); err == nil {
			t.Errorf("%s: decrypted as %q with another label", name, plain)
		}
	}
	encrypted := both.Encrypt([]byte("plain"), "label")
	if _, err := newer.Decrypt(encrypted, "label"); err != nil {
		t.Errorf("the new key alone: %v", err)
	}
	if plain, err := oldCipher.Decrypt(encrypted, "label"); err == nil {
		t.Errorf("the old key decrypts %q", plain)
	}
	if _, err := auth.NewCipher([]byte("the new secret key"), []byte("short")); err == nil {
		t.Error("a second key that is too short is accepted")
	}
}
