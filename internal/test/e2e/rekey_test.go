package e2e_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestRekey: rekey re-encrypts the secrets of a thousand agents. It is killed after each
// page, and a server started then signs as before. In the end everything is encrypted with
// the new key only, the old key is kept in a separate file, and an earlier backup works
// with it.
func TestRekey(t *testing.T) {
	t.Parallel()
	got, url, env := startReceiver(t, nil)
	server := testserver.Start(t, append(env, quickRetries, "AGENTMARKET_STARTING_CREDITS=10000")...)
	agent := server.Register("Agent", map[string]any{"webhookUrl": url, "capabilities": []string{"x"}}, "Idempotency-Key", "a key that is long enough")
	poster := server.Register("Poster", nil)
	signed := func() {
		t.Helper()
		server.PostTask(poster.Key, "x")
		d := nextDelivery(t, got)
		mac := hmac.New(sha256.New, []byte(agent.WebhookSecret))
		_, _ = mac.Write([]byte(d.body))
		if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); d.header.Get("X-AgentMarket-Signature") != want {
			t.Errorf("signature %s, want %s", d.header.Get("X-AgentMarket-Signature"), want)
		}
	}
	signed()
	server.Stop()
	path := filepath.Join(server.Dir, "agentmarket.db")
	oldKey := strings.TrimSpace(testutil.ReadFile(t, path+".key"))
	createSecrets(t, path, oldKey)
	backup := filepath.Join(t.TempDir(), "agentmarket.db")
	if text, code := testserver.Run(t, server.Dir, "backup", "--to", backup); code != 0 {
		t.Fatal(text)
	}
	for pages := 1; ; pages++ {
		if runRekey(t, server.Dir, pages) || testutil.ReadFile(t, path+".key") != oldKey+"\n" { // it was not killed in time
			break
		}
		server.Restart()
		signed()
		server.Stop()
	}
	newKey := strings.TrimSpace(testutil.ReadFile(t, path+".key"))
	if kept, _ := filepath.Glob(path + ".key.until-*"); len(kept) != 1 || strings.TrimSpace(testutil.ReadFile(t, kept[0])) != oldKey || newKey == oldKey {
		t.Errorf("the old key is in %v", kept)
	}
	checkEncryptedWith(t, path, newKey)
	server.Restart()
	signed()
	again := server.Register("Agent", map[string]any{"webhookUrl": url, "capabilities": []string{"x"}}, "Idempotency-Key", "a key that is long enough")
	if again != agent {
		t.Error("an idempotent response cannot be decrypted")
	}
	server.Verify()
	server.Stop()
	server.Restart("AGENTMARKET_DATABASE="+backup, "AGENTMARKET_SECRET_KEY="+newKey, "AGENTMARKET_OLD_SECRET_KEY="+oldKey)
	signed()
}

// createSecrets adds several pages of agents with secrets.
func createSecrets(t *testing.T, path, key string) {
	t.Helper()
	box, err := auth.NewCipher([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	later := models.NewTime(time.Now().Add(time.Hour)) // else the server deletes it
	withDatabase(t, path, func(db *database.DB) error {
		return db.Write(t.Context(), func(tx *database.Tx) error {
			for i := range 1100 {
				id := fmt.Sprintf("agent-%04d", i)
				agent := models.Agent{ID: id, Name: "Agent", Capabilities: []string{}, PricePerTask: 10}
				if err := tx.Create(&agent).Error; err != nil {
					return err
				}
				if err := tx.Create(&models.Secret{AgentID: id, Encrypted: box.Encrypt([]byte("whsec_"+id), id), Hint: "whsec_"}).Error; err != nil {
					return err
				}
				if err := tx.Create(&models.PreviousSecret{AgentID: id, ID: "1", Encrypted: box.Encrypt([]byte("whsec_old"), id), SignsUntil: later}).Error; err != nil {
					return err
				}
			}
			return nil
		})
	})
	withDatabase(t, path, func(*database.DB) error { return nil }) // a start adds the words of the agents
}

// withDatabase opens a database that no server uses.
func withDatabase(t *testing.T, path string, do func(*database.DB) error) {
	t.Helper()
	db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := do(db); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// runRekey runs rekey and kills it after a number of pages. It reports whether it finished
// first.
func runRekey(t *testing.T, dir string, pages int) (finished bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testserver.BinaryPath(), "rekey")
	cmd.Dir = dir
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "agentmarket:") {
			t.Fatal(lines.Text())
		}
		if finished = strings.HasPrefix(lines.Text(), "Re-encryption complete."); finished {
			break
		}
		if pages--; pages == 0 {
			_ = cmd.Process.Kill() // it may have exited
			break
		}
	}
	_ = cmd.Wait() // it was killed
	return finished
}

// checkEncryptedWith checks that every secret decrypts with one key only.
func checkEncryptedWith(t *testing.T, path, key string) {
	t.Helper()
	box, err := auth.NewCipher([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	withDatabase(t, path, func(db *database.DB) error {
		var rows []models.Secret
		if err := db.Read(t.Context()).Find(&rows).Error; err != nil {
			return err
		}
		if len(rows) != 1101 {
			t.Errorf("%d secrets", len(rows))
		}
		for _, row := range rows {
			if _, err := box.Decrypt(row.Encrypted, row.AgentID); err != nil {
				t.Errorf("the secret of %s: %v", row.AgentID, err)
			}
		}
		var previous []models.PreviousSecret
		if err := db.Read(t.Context()).Find(&previous).Error; err != nil {
			return err
		}
		if len(previous) != 1100 {
			t.Errorf("%d previous secrets", len(previous))
		}
		for _, row := range previous {
			if _, err := box.Decrypt(row.Encrypted, row.AgentID); err != nil {
				t.Errorf("the previous secret of %s: %v", row.AgentID, err)
			}
		}
		return nil
	})
}

// TestRekey_errors: rekey changes nothing if it cannot finish.
func TestRekey_errors(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	server.Register("Agent", map[string]any{"endpointUrl": "https://agent.example.com/run"})
	for _, row := range []struct {
		code              int
		args, wantMessage string
	}{
		{1, "rekey", "another process is using it"},
		{1, "rekey --database none.db", "no such file"},
		{1, "rekey --database none.db --secret-key=another-secret-key", "no such file"},
		{2, "rekey --database postgres://127.0.0.1/market", "secret-key: must be set"},
	} {
		text, code := testserver.Run(t, server.Dir, strings.Fields(row.args)...)
		if code != row.code || !strings.Contains(text, row.wantMessage) {
			t.Errorf("%s: exit %d, %s", row.args, code, text)
		}
	}
	server.Stop()
	if text, code := testserver.Run(t, server.Dir, "rekey", "--secret-key=another secret key", "--old-secret-key=not the right one"); code != 1 || !strings.Contains(text, "secret key") {
		t.Errorf("with a wrong old key: exit %d, %s", code, text)
	}
	if files, err := os.ReadDir(server.Dir); err != nil || len(files) > 3 { // the database, its key and its lock
		t.Errorf("remaining files: %v (%v)", files, err)
	}
	oldKey := strings.TrimSpace(testutil.ReadFile(t, filepath.Join(server.Dir, "agentmarket.db.key")))
	if text, code := testserver.Run(t, server.Dir, "rekey", "--secret-key=another secret key", "--old-secret-key="+oldKey); code != 0 {
		t.Errorf("with the right keys: exit %d, %s", code, text)
	}
	server.Restart("AGENTMARKET_SECRET_KEY=another secret key")
}
