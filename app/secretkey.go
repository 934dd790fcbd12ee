package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/config"
)

// openBox makes the box that seals secrets, with the configured key or the one
// kept beside the database, which is made at the first start.
func openBox(c config.Config) (*auth.Box, error) {
	if c.SecretKey != "" {
		return auth.NewBox([]byte(c.SecretKey))
	}
	path := c.Database + ".key"
	key, err := os.ReadFile(path) //nolint:gosec // the operator names the database
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	return auth.NewBox([]byte(strings.TrimSpace(string(key))))
}

// makeKey writes a fresh key that only the owner may read. It never overwrites
// one.
func makeKey(path string) ([]byte, error) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	key := []byte(hex.EncodeToString(raw) + "\n")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the database
	if err != nil {
		return nil, err
	}
	_, err = file.Write(key)
	return key, errors.Join(err, file.Sync(), file.Close())
}
