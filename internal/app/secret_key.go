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

// secretKeyLength is how many characters a key has that was made here: 32 bytes in hex.
const secretKeyLength = 64

// pendingKeySuffix ends the name of the key that a rekeying has not finished with. A
// server opens what is sealed with it, so that it serves whatever was cut off.
const pendingKeySuffix = ".new"

// openSealer makes the box that seals secrets, with the configured key or the one
// kept beside the database, which is made at the first start.
func openSealer(c config.Config) (*auth.Cipher, error) {
	if c.SecretKey != "" {
		return newSealer(c.SecretKey, c.OldSecretKey)
	}
	path := keyPath(c.Database)
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	next, err := readKey(path + pendingKeySuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	return newSealer(key, next)
}

// newSealer seals with a key, and opens what another one sealed unless it is empty.
func newSealer(key, other string) (*auth.Cipher, error) {
	if other == "" {
		return auth.NewCipher([]byte(key))
	}
	return auth.NewCipher([]byte(key), []byte(other))
}

// keyPath is where the key of a database is kept that is given none.
func keyPath(database string) string { return database + ".key" }

func readKey(path string) (string, error) {
	key, err := os.ReadFile(path) //nolint:gosec // the operator names the database
	return strings.TrimSpace(string(key)), err
}

// makeKey writes a fresh key that only the owner may read. It never overwrites
// one.
func makeKey(path string) (string, error) {
	raw := make([]byte, secretKeyLength/2)
	_, _ = rand.Read(raw)
	key := hex.EncodeToString(raw)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the database
	if err != nil {
		return "", err
	}
	_, err = file.WriteString(key + "\n")
	return key, errors.Join(err, file.Sync(), file.Close())
}
