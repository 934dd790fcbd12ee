package outbound

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	secretPrefix = "whsec_"
	secretBytes  = 32
)

// SignatureHeader is the header that carries the documented signature.
const SignatureHeader = "X-AgentMarket-Signature"

// NewSecret makes a signing secret: whsec_ and the base64 of 32 random bytes.
func NewSecret() string {
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw)
	return secretPrefix + base64.StdEncoding.EncodeToString(raw)
}

// Sign makes the documented signature of a body: sha256= and the hex of its
// HMAC, keyed with the secret's text.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// SignStandard makes a Standard Webhooks signature: v1, and the base64 of the
// HMAC over id, time (Unix seconds) and body, keyed with the bytes that the
// secret's base64 stands for.
func SignStandard(secret, id string, at int64, body []byte) (string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		return "", fmt.Errorf("signing secret: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(fmt.Appendf(nil, "%s.%d.", id, at))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}
