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

// SignatureHeader is the header of the signature that [Sign] returns.
const SignatureHeader = "X-AgentMarket-Signature"

// NewSecret returns a random signing secret: whsec_ and the base64 of 32 bytes.
func NewSecret() string {
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw)
	return secretPrefix + base64.StdEncoding.EncodeToString(raw)
}

// Sign returns the signature of body for [SignatureHeader]: sha256= and the hex
// HMAC-SHA256. The key is the text of secret.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// SignStandardWebhook returns the Standard Webhooks signature of a request: "v1," and the
// base64 HMAC-SHA256 of id, timestamp (in Unix seconds) and body. The key is the
// decoded base64 part of secret. It returns an error when that part is not base64.
func SignStandardWebhook(secret, id string, timestamp int64, body []byte) (string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		return "", fmt.Errorf("decode signing secret: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(fmt.Appendf(nil, "%s.%d.", id, timestamp))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}
