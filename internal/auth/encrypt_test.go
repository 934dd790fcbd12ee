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
	box, err := auth.NewCipher([]byte(secret))
	testutil.Must(t, err)
	return box
}

func TestCipher(t *testing.T) {
	t.Parallel()
	box := newCipher(t, "a secret of the operator")
	for _, plain := range []string{"", "x", "whsec_c2VjcmV0", strings.Repeat("long ", 10_000)} {
		sealed := box.Encrypt([]byte(plain), "agent 1")
		if len(plain) > 4 && bytes.Contains(sealed, []byte(plain)) {
			t.Errorf("%.20q can be read in the sealed value", plain)
		}
		for name, opener := range map[string]*auth.Cipher{"the same": box, "another of the same secret": newCipher(t, "a secret of the operator")} {
			if got, err := opener.Decrypt(sealed, "agent 1"); err != nil || string(got) != plain {
				t.Errorf("%s box opened %.20q as %.20q (%v)", name, plain, got, err)
			}
		}
	}
}

func TestCipher_rejectsTampering(t *testing.T) {
	t.Parallel()
	const secret, label, plain = "a secret of the operator", "agent 1", "whsec_c2VjcmV0"
	box := newCipher(t, secret)
	sealed := box.Encrypt([]byte(plain), label)
	refused := func(what string, box *auth.Cipher, sealed []byte, label string) {
		t.Helper()
		got, err := box.Decrypt(sealed, label)
		if err == nil || len(got) > 0 {
			t.Errorf("%s: opened as %q", what, got)
		}
		if err != nil && strings.Contains(err.Error(), plain) {
			t.Errorf("%s: the error shows what was sealed", what)
		}
	}
	for i := range len(sealed) * 8 {
		flipped := bytes.Clone(sealed)
		flipped[i/8] ^= 1 << (i % 8)
		refused("a flipped bit", box, flipped, label)
	}
	for n := range sealed {
		refused("cut off", box, sealed[:n], label)
	}
	refused("bytes that follow", box, append(bytes.Clone(sealed), 0), label)
	refused("nothing", box, nil, label)
	refused("another key", newCipher(t, "another secret key"), sealed, label)
	refused("another label", box, sealed, "agent 2")
	refused("no label", box, sealed, "")
}

// TestCipher_uniqueNonces: the same text sealed twice does not look the same.
func TestCipher_uniqueNonces(t *testing.T) {
	t.Parallel()
	const nonce = 12
	box := newCipher(t, "a secret of the operator")
	seen := map[string]bool{}
	for range 1000 {
		sealed := box.Encrypt([]byte("the same"), "agent 1")
		seen[string(sealed[:nonce])] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d nonces for 1000 values", len(seen))
	}
}

func TestNewCipher_minSecretLength(t *testing.T) {
	t.Parallel()
	for length, enough := range map[int]bool{0: false, 15: false, 16: true, 1000: true} {
		secret := strings.Repeat("s", length)
		_, err := auth.NewCipher([]byte(secret))
		if (err == nil) != enough {
			t.Errorf("a secret of %d bytes: %v", length, err)
		}
		if err != nil && length > 0 && strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}
