package app

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
)

// TestOpenCipher checks that the key file is created once with mode 0600, and that an
// invalid one is an error.
func TestOpenCipher(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	logger := slog.New(slog.DiscardHandler)
	db, err := database.Open(t.Context(), c.Database, logger)
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	open := func() (*auth.Cipher, error) { return openCipher(t.Context(), c, db, logger) }
	first, err := open()
	testutil.Must(t, err)
	if info, err := os.Stat(c.Database + ".key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got key file mode %v (%v)", info.Mode(), err)
	}
	second, err := open()
	testutil.Must(t, err)
	if plain, err := second.Decrypt(first.Encrypt([]byte("secret"), "label"), "label"); err != nil || string(plain) != "secret" {
		t.Errorf("after a restart: decrypted %q (%v)", plain, err)
	}
	testutil.Must(t, os.WriteFile(c.Database+".key", nil, 0o600)) // as after a crash
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "needs 16 or more") {
		t.Errorf("empty key file: %v", err)
	}
}
