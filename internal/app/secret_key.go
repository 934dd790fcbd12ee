package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"agentmarket.space/server/internal/audit"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// secretKeyLength is the length of a generated key: 32 bytes in hex.
const secretKeyLength = 64

// keySuffix is the suffix of the key file after the path of the database.
const keySuffix = ".key"

// pendingKeySuffix is the suffix of the new key file during a rekey. The server also
// decrypts with this key, so that it can start after an interrupted rekey.
const pendingKeySuffix = ".new"

// errKeyMissing and errKeyWrong say what to do when the secrets in the database cannot
// be opened.
var (
	errKeyMissing = errors.New("the key file is missing, and the database has secrets encrypted with it: restore the file, or give up the secrets with --new-secret-key")
	errKeyWrong   = errors.New("the key cannot decrypt the secrets in the database: use the key that encrypted them, or give them up with --new-secret-key")
)

// openCipher returns the cipher for secrets. It uses the configured key, or the key
// file next to the database, which it creates on the first start. It returns an error
// if the database has secrets that need another key, unless the operator gives them up.
func openCipher(ctx context.Context, c config.Config, db *database.DB, logger *slog.Logger) (*auth.Cipher, error) {
	cipher, err := loadCipher(ctx, c, db, logger)
	if err != nil {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	var giveUp func(tx *database.Tx, lost int64) error
	if c.GiveUpSecrets {
		giveUp = func(tx *database.Tx, lost int64) error {
			tx.OnCommit(func() {
				logger.WarnContext(ctx, "secrets were given up, because their key is lost; agents must rotate their webhook secrets", slog.Int64("lost", lost))
			})
			return audit.New(db, time.Now).Record(ctx, tx, models.OperatorActor, models.AuditSecretsGivenUp, "")
		}
	}
	err = auth.ClaimKey(ctx, db, cipher, encryptedTables(), giveUp)
	if errors.Is(err, auth.ErrWrongKey) {
		err = errKeyWrong
	}
	if err != nil {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	return cipher, nil
}

// encryptedTables returns all tables with secrets, in the order in which transactions
// lock them.
func encryptedTables() []auth.EncryptedTable {
	return append([]auth.EncryptedTable{idempotency.EncryptedColumns()}, webhooks.EncryptedTables()...)
}

// loadCipher reads the keys. It does not create a key file if the database has secrets,
// unless the operator gives them up.
func loadCipher(ctx context.Context, c config.Config, db *database.DB, logger *slog.Logger) (*auth.Cipher, error) {
	if c.SecretKey != "" {
		return newCipher(c.SecretKey, c.OldSecretKey)
	}
	path := keyPath(c.Database)
	database.RestrictMode(path, logger)
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		used, usedErr := auth.HasEncrypted(ctx, db, encryptedTables())
		if usedErr != nil {
			return nil, usedErr
		}
		if used && !c.GiveUpSecrets {
			return nil, fmt.Errorf("%s: %w", path, errKeyMissing)
		}
		key, err = createKeyFile(path)
	}
	if err != nil {
		return nil, err
	}
	pending, err := readKey(path + pendingKeySuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
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

// keyPath returns the path of the key file of a database: next to the file that a
// symbolic link leads to, or next to the link if there is a key file only there.
func keyPath(databasePath string) string {
	given := databasePath + keySuffix
	resolved, err := database.ResolvePath(databasePath)
	if err != nil {
		return given
	}
	_, givenErr := os.Stat(given)
	if _, err := os.Stat(resolved + keySuffix); errors.Is(err, fs.ErrNotExist) && givenErr == nil {
		return given
	}
	return resolved + keySuffix
}

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
