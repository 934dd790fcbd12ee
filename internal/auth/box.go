package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
)

// Box seals what must be kept secret but read again. AES-256-GCM with a random
// nonce; a sealed value opens only under the label that it was sealed with.
type Box struct {
	aead   cipher.AEAD
	others []cipher.AEAD // open too
}

// NewBox makes a box from a secret of any length of at least 16 bytes. It opens what
// was sealed with one of the others as well: a server has two while it goes from
// one to the next.
func NewBox(secret []byte, others ...[]byte) (*Box, error) {
	aead, err := newAEAD(secret)
	if err != nil {
		return nil, err
	}
	b := &Box{aead: aead}
	for _, other := range others {
		if aead, err = newAEAD(other); err != nil {
			return nil, err
		}
		b.others = append(b.others, aead)
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

// Seal encrypts plain under a label, for example an agent's id.
func (b *Box) Seal(plain []byte, label string) []byte {
	return b.aead.Seal(nil, nil, plain, []byte(label)) //nolint:gosec // the AEAD makes its own random nonce
}

// Open decrypts what Seal made under the same label.
func (b *Box) Open(sealed []byte, label string) ([]byte, error) {
	plain, err := b.aead.Open(nil, nil, sealed, []byte(label))
	for _, other := range b.others {
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

// Reseal returns a sealed value as the box seals now, and whether that is another
// one: what it has sealed itself stays.
func (b *Box) Reseal(sealed []byte, label string) (now []byte, changed bool, err error) {
	if _, err := b.aead.Open(nil, nil, sealed, []byte(label)); err == nil {
		return sealed, false, nil
	}
	plain, err := b.Open(sealed, label)
	if err != nil {
		return nil, false, err
	}
	return b.Seal(plain, label), true, nil
}
