package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"agentmarket.space/server/internal/audit"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// RekeyOptions selects the database and the keys for [Rekey].
type RekeyOptions struct {
	Database     string
	SecretKey    string // if empty, Rekey generates a key and replaces the key file
	OldSecretKey string
}

// Rekey re-encrypts all secrets in a database with a new key, and calls onProgress
// after each page of rows. If the key is in a key file, Rekey replaces the file at the
// end, and returns the path of a copy of the old key. An interrupted Rekey can be
// repeated. Until then a server accepts both keys.
func Rekey(ctx context.Context, r RekeyOptions, logger *slog.Logger, onProgress func(auth.ReencryptProgress)) (oldKeyPath string, err error) {
	if !database.IsPostgres(r.Database) {
		if _, err := os.Stat(r.Database); err != nil {
			return "", fmt.Errorf("open database: %w", err) // Open would create it
		}
	} else if r.SecretKey == "" {
		return "", errors.New("secret-key: must be set for PostgreSQL, with the current key as old-secret-key")
	}
	db, err := database.Open(ctx, r.Database, logger)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	cipher, err := r.cipher(ctx, db, logger)
	if err != nil {
		return "", fmt.Errorf("secret key: %w", err)
	}
	if err := reencryptSecrets(ctx, db, cipher, onProgress); err != nil || r.SecretKey != "" {
		return "", err
	}
	return replaceKey(keyPath(r.Database))
}

// cipher returns a cipher that encrypts with the new key and decrypts with both. It
// records the new key in the database. It returns an error and creates no key file if
// the database needs another key.
func (r *RekeyOptions) cipher(ctx context.Context, db *database.DB, logger *slog.Logger) (*auth.Cipher, error) {
	if r.SecretKey != "" {
		cipher, err := newCipher(r.SecretKey, r.OldSecretKey)
		if err != nil {
			return nil, err
		}
		return cipher, claimForRekey(ctx, db, cipher)
	}
	path := keyPath(r.Database)
	old, err := readKey(path)
	if err != nil {
		return nil, err
	}
	current, err := loadCipher(ctx, config.Config{Database: r.Database}, db, logger)
	if err != nil {
		return nil, err
	}
	if err := claimForRekey(ctx, db, current); err != nil {
		return nil, err
	}
	key, err := readKey(path + pendingKeySuffix)
	if err == nil && len(key) < secretKeyLength { // partially written, so nothing is encrypted with it
		err = cmp.Or(os.Remove(path+pendingKeySuffix), fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		key, err = createKeyFile(path + pendingKeySuffix)
		err = errors.Join(err, database.Fsync(filepath.Dir(path)))
	}
	if err != nil {
		return nil, err
	}
	cipher, err := newCipher(key, old)
	if err != nil {
		return nil, err
	}
	return cipher, claimForRekey(ctx, db, cipher)
}

// claimForRekey records the current key of a cipher. Until the rekey is complete, a
// start needs the old key too.
func claimForRekey(ctx context.Context, db *database.DB, cipher *auth.Cipher) error {
	err := auth.ClaimKey(ctx, db, cipher, encryptedTables(), nil)
	if errors.Is(err, auth.ErrWrongKey) {
		return errors.New("neither key decrypts all secrets in the database: pass the key that encrypted them as --old-secret-key")
	}
	return err
}

// reencryptSecrets re-encrypts all tables with secrets and adds an audit entry.
func reencryptSecrets(ctx context.Context, db *database.DB, cipher *auth.Cipher, onProgress func(auth.ReencryptProgress)) error {
	if !db.IsShared() { // overwrite the old ciphertext in the file
		err := db.Write(ctx, func(tx *database.Tx) error { return tx.Exec("PRAGMA secure_delete = ON").Error })
		if err != nil {
			return err
		}
	}
	for _, table := range encryptedTables() {
		if err := auth.Reencrypt(ctx, db, cipher, table, onProgress); err != nil {
			return err
		}
	}
	log := audit.New(db, time.Now)
	return db.Write(ctx, func(tx *database.Tx) error {
		if err := auth.KeepOnlyCurrentKey(tx, cipher); err != nil {
			return err
		}
		return log.Record(ctx, tx, models.OperatorActor, models.AuditSecretsReencrypted, "")
	})
}

// replaceKey replaces the key file with the new key, and returns the path of a copy
// of the old key.
func replaceKey(path string) (oldKeyPath string, err error) {
	oldKeyPath = path + ".until-" + time.Now().UTC().Format("20060102T150405.000000Z")
	if err := os.Link(path, oldKeyPath); err != nil {
		return "", err
	}
	if err := os.Rename(path+pendingKeySuffix, path); err != nil {
		return "", err
	}
	return oldKeyPath, database.Fsync(filepath.Dir(path))
}
