package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
)

// Cipher seals what must be kept secret but read again. AES-256-GCM with a random
// nonce; a sealed value opens only under the label that it was sealed with.
type Cipher struct {
	aead      cipher.AEAD
	fallbacks []cipher.AEAD // open too
}

// NewCipher makes a box from a secret of any length of at least 16 bytes. It opens what
// was sealed with one of the others as well: a server has two while it goes from
// one to the next.
func NewCipher(secret []byte, others ...[]byte) (*Cipher, error) {
	aead, err := newAEAD(secret)
	if err != nil {
		return nil, err
	}
	b := &Cipher{aead: aead}
	for _, other := range others {
		if aead, err = newAEAD(other); err != nil {
			return nil, err
		}
		b.fallbacks = append(b.fallbacks, aead)
	}
	return b, nil
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

// Encrypt encrypts plain under a label, for example an agent's id.
func (b *Cipher) Encrypt(plain []byte, label string) []byte {
	return b.aead.Seal(nil, nil, plain, []byte(label)) //nolint:gosec // the AEAD makes its own random nonce
}

// Decrypt decrypts what Encrypt made under the same label.
func (b *Cipher) Decrypt(sealed []byte, label string) ([]byte, error) {
	plain, err := b.aead.Open(nil, nil, sealed, []byte(label))
	for _, other := range b.fallbacks {
		if err == nil {
			break
		}
		plain, err = other.Open(nil, nil, sealed, []byte(label))
	}
	if err != nil {
		return nil, fmt.Errorf("open a sealed value (is it the secret key it was sealed with?): %w", err)
	}
	return plain, nil
}

// Reencrypt returns a sealed value as the box seals now, and whether that is another
// one: what it has sealed itself stays.
func (b *Cipher) Reencrypt(sealed []byte, label string) (now []byte, changed bool, err error) {
	if _, err := b.aead.Open(nil, nil, sealed, []byte(label)); err == nil {
		return sealed, false, nil
	}
	plain, err := b.Decrypt(sealed, label)
	if err != nil {
		return nil, false, err
	}
	return b.Encrypt(plain, label), true, nil
}
