package outbound

import (
	"bytes"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/test/trust/trusttest"
)

// TestSign compares signatures with those of openssl and of the Standard Webhooks
// library.
func TestSign(t *testing.T) {
	t.Parallel()
	// printf '{"event":"task.posted"}' | openssl dgst -sha256 -hmac secret
	const want = "sha256=214967a8547963b254012474b6aa7a9ab744b4610f76c45bcd4259eb8941fbb8"
	if got := Sign("secret", []byte(`{"event":"task.posted"}`)); got != want {
		t.Errorf("signed %s, want %s", got, want)
	}
	secret := NewSecret()
	if raw, ok := strings.CutPrefix(secret, "whsec_"); !ok || len(raw) != 44 || secret == NewSecret() {
		t.Errorf("the secret %s is not whsec_ and 32 bytes in base64, or not random", secret)
	}
	now := time.Now()
	signature, err := SignStandardWebhook(secret, "msg_1", now.Unix(), []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := verifier.Sign("msg_1", now, []byte("body")); err != nil || want != signature {
		t.Errorf("signed %s, want %s (%v)", signature, want, err)
	}
	if _, err := SignStandardWebhook("whsec_!", "msg_1", 0, nil); err == nil {
		t.Error("signed with a secret that is not base64")
	}
}

// FuzzSign checks that signatures are deterministic and change with the body and with
// the secret.
func FuzzSign(f *testing.F) {
	f.Add("msg_1", int64(1_700_000_000), []byte(`{"event":"task.posted"}`))
	f.Add("", int64(0), []byte(nil))
	f.Add("\x00.\n", int64(-1), []byte("\xff\xfe"))
	secret, other := NewSecret(), NewSecret()
	signed := 0
	f.Fuzz(func(t *testing.T, id string, at int64, body []byte) {
		signed++
		standard, err := SignStandardWebhook(secret, id, at, body)
		second, errSecond := SignStandardWebhook(secret, id, at, body)
		if err != nil || errSecond != nil || standard != second {
			t.Fatalf("signed %q and %q (%v, %v)", standard, second, err, errSecond)
		}
		longerBody := append(bytes.Clone(body), 0)
		otherSecret, err := SignStandardWebhook(other, id, at, body)
		longer, errLonger := SignStandardWebhook(secret, id, at, longerBody)
		if err != nil || errLonger != nil || otherSecret == standard || longer == standard || Sign(secret, body) == Sign(secret, longerBody) || Sign(secret, body) == Sign(other, body) {
			t.Fatalf("two signatures of %q are equal", body)
		}
	})
	trusttest.Report(f, "signatures", "%d signed texts: each verifies, and with a byte more or another secret it does not", signed)
}
