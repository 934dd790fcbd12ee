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
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// RekeyOptions is which store is to be sealed with which key.
type RekeyOptions struct {
	Database     string
	SecretKey    string // empty has the key beside the database replaced
	OldSecretKey string
}

// Rekey seals everything in a store anew with another key, and tells of each page of
// rows. The key beside a database gets its place when all is sealed with the new one;
// the old one is kept beside it, and where is returned. Cut off anywhere, it is begun
// again with the same command, and a server that is started in between serves on with
// both keys.
func Rekey(ctx context.Context, r RekeyOptions, logger *slog.Logger, tell func(auth.ReencryptProgress)) (kept string, err error) {
	if !database.IsPostgres(r.Database) {
		if _, err := os.Stat(r.Database); err != nil {
			return "", fmt.Errorf("open database: %w", err) // it would be made
		}
	} else if r.SecretKey == "" {
		return "", errors.New("secret-key: must be given with PostgreSQL, and the one to replace as old-secret-key")
	}
	db, err := database.Open(ctx, r.Database, logger)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	box, err := r.sealer()
	if err != nil {
		return "", fmt.Errorf("secret key: %w", err)
	}
	if err := reencryptSecrets(ctx, db, box, tell); err != nil || r.SecretKey != "" {
		return "", err
	}
	return replaceKey(keyPath(r.Database))
}

// sealer seals with the new key and opens with both.
func (r *RekeyOptions) sealer() (*auth.Cipher, error) {
	if r.SecretKey != "" {
		return newSealer(r.SecretKey, r.OldSecretKey)
	}
	path := keyPath(r.Database)
	old, err := readKey(path)
	if err != nil {
		return nil, err
	}
	key, err := readKey(path + pendingKeySuffix)
	if err == nil && len(key) < secretKeyLength { // it was cut off, and has sealed nothing
		err = cmp.Or(os.Remove(path+pendingKeySuffix), fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path + pendingKeySuffix)
		err = errors.Join(err, database.Fsync(filepath.Dir(path)))
	}
	if err != nil {
		return nil, err
	}
	return newSealer(key, old)
}

// reencryptSecrets goes through all that is sealed.
func reencryptSecrets(ctx context.Context, db *database.DB, box *auth.Cipher, tell func(auth.ReencryptProgress)) error {
	if !db.IsShared() { // what is replaced is not to be left in the file
		err := db.Write(ctx, func(tx *database.Tx) error { return tx.Exec("PRAGMA secure_delete = ON").Error })
		if err != nil {
			return err
		}
	}
	for _, table := range []auth.EncryptedTable{webhooks.EncryptedColumns(), idempotency.EncryptedColumns()} {
		if err := auth.Reencrypt(ctx, db, box, table, tell); err != nil {
			return err
		}
	}
	log := audit.New(db, time.Now)
	return db.Write(ctx, func(tx *database.Tx) error {
		return log.Record(ctx, tx, models.OperatorActor, models.SecretsReencrypted, "")
	})
}

// replaceKey puts the new key in the place of the old one, which gets a name of its
// own.
func replaceKey(path string) (kept string, err error) {
	kept = path + ".until-" + time.Now().UTC().Format("20060102T150405.000000Z")
	if err := os.Link(path, kept); err != nil {
		return "", err
	}
	if err := os.Rename(path+pendingKeySuffix, path); err != nil {
		return "", err
	}
	return kept, database.Fsync(filepath.Dir(path))
}
