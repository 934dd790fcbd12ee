package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/config"
)

// secretKeyLength is the length of a generated key: 32 bytes in hex.
const secretKeyLength = 64

// pendingKeySuffix is the suffix of the new key file during a rekey. The server also
// decrypts with this key, so that it can start after an interrupted rekey.
const pendingKeySuffix = ".new"

// openCipher returns the cipher for secrets. It uses the configured key, or the key
// file next to the database, which it creates on the first start.
func openCipher(c config.Config) (*auth.Cipher, error) {
	if c.SecretKey != "" {
		return newCipher(c.SecretKey, c.OldSecretKey)
	}
	path := keyPath(c.Database)
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = createKeyFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	pending, err := readKey(path + pendingKeySuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	return newCipher(key, pending)
}

// newCipher returns a cipher that encrypts with key, and decrypts with key and, unless
// it is empty, other.
func newCipher(key, other string) (*auth.Cipher, error) {
	if other == "" {
		return auth.NewCipher([]byte(key))
	}
	return auth.NewCipher([]byte(key), []byte(other))
}

// keyPath returns the path of the key file of a database.
func keyPath(database string) string { return database + ".key" }

func readKey(path string) (string, error) {
	key, err := os.ReadFile(path) //nolint:gosec // the operator chooses the path
	return strings.TrimSpace(string(key)), err
}

// createKeyFile creates a key file with a random key and mode 0600. It returns an error if
// the file exists.
func createKeyFile(path string) (string, error) {
	raw := make([]byte, secretKeyLength/2)
	_, _ = rand.Read(raw)
	key := hex.EncodeToString(raw)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator chooses the path
	if err != nil {
		return "", err
	}
	_, err = file.WriteString(key + "\n")
	return key, errors.Join(err, file.Sync(), file.Close())
}
