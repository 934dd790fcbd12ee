package auth_test

import (
	"bytes"
	"strings"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/test/testutil"
)

func newCipher(t *testing.T, secret string) *auth.Cipher {
	t.Helper()
	c, err := auth.NewCipher([]byte(secret))
	testutil.Must(t, err)
	return c
}

func TestCipher(t *testing.T) {
	t.Parallel()
	c := newCipher(t, "a secret of the operator")
	for _, plain := range []string{"", "x", "whsec_c2VjcmV0", strings.Repeat("long ", 10_000)} {
		encrypted := c.Encrypt([]byte(plain), "agent 1")
		if len(plain) > 4 && bytes.Contains(encrypted, []byte(plain)) {
			t.Errorf("the encrypted value contains %.20q", plain)
		}
		for name, decrypter := range map[string]*auth.Cipher{"the same cipher": c, "another cipher of the same secret": newCipher(t, "a secret of the operator")} {
			if got, err := decrypter.Decrypt(encrypted, "agent 1"); err != nil || string(got) != plain {
				t.Errorf("%s decrypted %.20q as %.20q (%v)", name, plain, got, err)
			}
		}
	}
}

func TestCipher_rejectsTampering(t *testing.T) {
	t.Parallel()
	const secret, label, plain = "a secret of the operator", "agent 1", "whsec_c2VjcmV0"
	c := newCipher(t, secret)
	encrypted := c.Encrypt([]byte(plain), label)
	wantError := func(name string, c *auth.Cipher, encrypted []byte, label string) {
		t.Helper()
		got, err := c.Decrypt(encrypted, label)
		if err == nil || len(got) > 0 {
			t.Errorf("%s: decrypted as %q", name, got)
		}
		if err != nil && strings.Contains(err.Error(), plain) {
			t.Errorf("%s: the error contains the plain text", name)
		}
	}
	for i := range len(encrypted) * 8 {
		flipped := bytes.Clone(encrypted)
		flipped[i/8] ^= 1 << (i % 8)
		wantError("a flipped bit", c, flipped, label)
	}
	for n := range encrypted {
		wantError("truncated", c, encrypted[:n], label)
	}
	wantError("extra bytes", c, append(bytes.Clone(encrypted), 0), label)
	wantError("no bytes", c, nil, label)
	wantError("another key", newCipher(t, "another secret key"), encrypted, label)
	wantError("another label", c, encrypted, "agent 2")
	wantError("no label", c, encrypted, "")
}

// TestCipher_uniqueNonces checks that equal texts encrypt to different values.
func TestCipher_uniqueNonces(t *testing.T) {
	t.Parallel()
	const nonce = 12
	c := newCipher(t, "a secret of the operator")
	seen := map[string]bool{}
	for range 1000 {
		encrypted := c.Encrypt([]byte("the same"), "agent 1")
		seen[string(encrypted[:nonce])] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d nonces for 1000 values", len(seen))
	}
}

func TestNewCipher_minSecretLength(t *testing.T) {
	t.Parallel()
	for length, ok := range map[int]bool{0: false, 15: false, 16: true, 1000: true} {
		secret := strings.Repeat("s", length)
		_, err := auth.NewCipher([]byte(secret))
		if (err == nil) != ok {
			t.Errorf("a secret of %d bytes: %v", length, err)
		}
		if err != nil && length > 0 && strings.Contains(err.Error(), secret) {
			t.Errorf("the error contains the secret: %v", err)
		}
	}
}
