package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
)

// Box seals what must be kept secret but read again. AES-256-GCM with a random
// nonce; a sealed value opens only under the label that it was sealed with.
type Box struct{ aead cipher.AEAD }

// NewBox makes a box from a secret of any length of at least 16 bytes.
func NewBox(secret []byte) (*Box, error) {
	if len(secret) < 16 {
		return nil, fmt.Errorf("the secret key has %d bytes; it needs 16 or more", len(secret))
	}
	key := sha256.Sum256(secret)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Box{aead: aead}, nil
}

// Seal encrypts plain under a label, for example an agent's id.
func (b *Box) Seal(plain []byte, label string) []byte {
	return b.aead.Seal(nil, nil, plain, []byte(label)) //nolint:gosec // the AEAD makes its own random nonce
}

// Open decrypts what Seal made under the same label.
func (b *Box) Open(sealed []byte, label string) ([]byte, error) {
	plain, err := b.aead.Open(nil, nil, sealed, []byte(label))
	if err != nil {
		return nil, fmt.Errorf("open a sealed value (is it the secret key it was sealed with?): %w", err)
	}
	return plain, nil
}
