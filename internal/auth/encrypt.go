package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Cipher encrypts and decrypts secrets with AES-256-GCM and random nonces. A label
// is the additional authenticated data: a value decrypts only with the label it was
// encrypted with.
type Cipher struct {
	current   sealingKey
	fallbacks []sealingKey // only for decryption
}

// sealingKey is a key and an id that is derived from it and does not reveal it.
type sealingKey struct {
	cipher.AEAD

	id string
}

// NewCipher returns a Cipher whose key derives from secret, which must have at least
// 16 bytes. It can also decrypt values encrypted with the other secrets, which a
// server needs while its key changes.
func NewCipher(secret []byte, others ...[]byte) (*Cipher, error) {
	current, err := newSealingKey(secret)
	if err != nil {
		return nil, err
	}
	c := &Cipher{current: current}
	for _, other := range others {
		key, err := newSealingKey(other)
		if err != nil {
			return nil, err
		}
		c.fallbacks = append(c.fallbacks, key)
	}
	return c, nil
}

func newSealingKey(secret []byte) (sealingKey, error) {
	if len(secret) < 16 {
		return sealingKey{}, fmt.Errorf("the secret key has %d bytes; it needs 16 or more", len(secret))
	}
	key := sha256.Sum256(secret)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return sealingKey{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	mac := hmac.New(sha256.New, key[:])
	_, _ = mac.Write([]byte("agentmarket secret key id")) // a hash returns no error
	return sealingKey{aead, hex.EncodeToString(mac.Sum(nil)[:keyIDSize])}, err
}

// keyIDSize is the size of a key's id in bytes.
const keyIDSize = 16

// keys returns the current key and the fallbacks.
func (c *Cipher) keys() []sealingKey { return append([]sealingKey{c.current}, c.fallbacks...) }

// open decrypts a value and returns the key that encrypted it.
func (c *Cipher) open(encrypted []byte, label string) (plain []byte, key sealingKey, err error) {
	for _, key = range c.keys() {
		if plain, err = key.Open(nil, nil, encrypted, []byte(label)); err == nil {
			return plain, key, nil
		}
	}
	return nil, key, err
}

// Encrypt encrypts plain under a label, for example an agent's ID.
func (c *Cipher) Encrypt(plain []byte, label string) []byte {
	return c.current.Seal(nil, nil, plain, []byte(label)) //nolint:gosec // the AEAD generates a random nonce
}

// Decrypt decrypts a value that Encrypt returned for the same label.
func (c *Cipher) Decrypt(encrypted []byte, label string) ([]byte, error) {
	plain, _, err := c.open(encrypted, label)
	if err != nil {
		return nil, fmt.Errorf("decrypt a stored secret (has the secret key changed?): %w", err)
	}
	return plain, nil
}

// Reencrypt encrypts a value with the current key. changed is false if the value
// already uses this key.
func (c *Cipher) Reencrypt(encrypted []byte, label string) (result []byte, changed bool, err error) {
	if _, err := c.current.Open(nil, nil, encrypted, []byte(label)); err == nil {
		return encrypted, false, nil
	}
	plain, err := c.Decrypt(encrypted, label)
	if err != nil {
		return nil, false, err
	}
	return c.Encrypt(plain, label), true, nil
}
