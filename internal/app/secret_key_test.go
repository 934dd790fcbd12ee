package app

import (
	"os"
	"strings"
	"testing"
)

// TestOpenCipher checks that the key file is created once with mode 0600, and that an
// invalid one is an error.
func TestOpenCipher(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	first, err := openCipher(c)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(c.Database + ".key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got key file mode %v (%v)", info.Mode(), err)
	}
	second, err := openCipher(c)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := second.Decrypt(first.Encrypt([]byte("secret"), "label"), "label"); err != nil || string(plain) != "secret" {
		t.Errorf("after a restart: decrypted %q (%v)", plain, err)
	}
	if err := os.WriteFile(c.Database+".key", nil, 0o600); err != nil { // as after a crash
		t.Fatal(err)
	}
	if _, err := openCipher(c); err == nil || !strings.Contains(err.Error(), "needs 16 or more") {
		t.Errorf("empty key file: %v", err)
	}
}
