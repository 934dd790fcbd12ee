package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
)

// Cipher encrypts and decrypts secrets with AES-256-GCM and random nonces. A label
// is the additional authenticated data: a value decrypts only with the label it was
// encrypted with.
type Cipher struct {
	aead      cipher.AEAD
	fallbacks []cipher.AEAD // only for decryption
}

// NewCipher returns a Cipher whose key derives from secret, which must have at least
// 16 bytes. It can also decrypt values encrypted with the other secrets, which a
// server needs while its key changes.
func NewCipher(secret []byte, others ...[]byte) (*Cipher, error) {
	aead, err := newAEAD(secret)
	if err != nil {
		return nil, err
	}
	c := &Cipher{aead: aead}
	for _, other := range others {
		if aead, err = newAEAD(other); err != nil {
			return nil, err
		}
		c.fallbacks = append(c.fallbacks, aead)
	}
	return c, nil
}

func newAEAD(secret []byte) (cipher.AEAD, error) {
	if len(secret) < 16 {
		return nil, fmt.Errorf("the secret key has %d bytes; it needs 16 or more", len(secret))
	}
	key := sha256.Sum256(secret)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Encrypt encrypts plain under a label, for example an agent's ID.
func (c *Cipher) Encrypt(plain []byte, label string) []byte {
	return c.aead.Seal(nil, nil, plain, []byte(label)) //nolint:gosec // the AEAD generates a random nonce
}

// Decrypt decrypts a value that Encrypt returned for the same label.
func (c *Cipher) Decrypt(encrypted []byte, label string) ([]byte, error) {
	plain, err := c.aead.Open(nil, nil, encrypted, []byte(label))
	for _, fallback := range c.fallbacks {
		if err == nil {
			break
		}
		plain, err = fallback.Open(nil, nil, encrypted, []byte(label))
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt a stored secret (has the secret key changed?): %w", err)
	}
	return plain, nil
}

// Reencrypt encrypts a value with the current key. changed is false if the value
// already uses this key.
func (c *Cipher) Reencrypt(encrypted []byte, label string) (result []byte, changed bool, err error) {
	if _, err := c.aead.Open(nil, nil, encrypted, []byte(label)); err == nil {
		return encrypted, false, nil
	}
	plain, err := c.Decrypt(encrypted, label)
	if err != nil {
		return nil, false, err
	}
	return c.Encrypt(plain, label), true, nil
}
