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

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// Rekeying is which store is to be sealed with which key.
type Rekeying struct {
	Database     string
	SecretKey    string // empty has the key beside the database replaced
	OldSecretKey string
}

// Rekey seals everything in a store anew with another key, and tells of each page of
// rows. The key beside a database gets its place when all is sealed with the new one;
// the old one is kept beside it, and where is returned. Cut off anywhere, it is begun
// again with the same command, and a server that is started in between serves on with
// both keys.
func Rekey(ctx context.Context, r Rekeying, logger *slog.Logger, tell func(auth.Resealed)) (kept string, err error) {
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
	box, err := r.box()
	if err != nil {
		return "", fmt.Errorf("secret key: %w", err)
	}
	if err := reseal(ctx, db, box, logger, tell); err != nil || r.SecretKey != "" {
		return "", err
	}
	return replaceKey(keyPath(r.Database))
}

// box seals with the new key and opens with both.
func (r *Rekeying) box() (*auth.Box, error) {
	if r.SecretKey != "" {
		return boxOf(r.SecretKey, r.OldSecretKey)
	}
	path := keyPath(r.Database)
	old, err := readKey(path)
	if err != nil {
		return nil, err
	}
	key, err := readKey(path + unfinished)
	if err == nil && len(key) < keyLength { // it was cut off, and has sealed nothing
		err = cmp.Or(os.Remove(path+unfinished), fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path + unfinished)
		err = errors.Join(err, database.Sync(filepath.Dir(path)))
	}
	if err != nil {
		return nil, err
	}
	return boxOf(key, old)
}

// reseal goes through all that is sealed.
func reseal(ctx context.Context, db *database.DB, box *auth.Box, logger *slog.Logger, tell func(auth.Resealed)) error {
	if !db.Shared() { // what is replaced is not to be left in the file
		err := db.Write(ctx, func(tx *database.Tx) error { return tx.Exec("PRAGMA secure_delete = ON").Error })
		if err != nil {
			return err
		}
	}
	for _, table := range []auth.Sealed{webhooks.Sealed(), market.Sealed()} {
		if err := auth.Reseal(ctx, db, box, table, tell); err != nil {
			return err
		}
	}
	books := market.New(market.Parts{DB: db, Now: time.Now, Logger: logger}, market.Settings{})
	return db.Write(ctx, func(tx *database.Tx) error { return books.Note(tx, models.SecretsResealed, "") })
}

// replaceKey puts the new key in the place of the old one, which gets a name of its
// own.
func replaceKey(path string) (kept string, err error) {
	kept = path + ".until-" + time.Now().UTC().Format("20060102T150405.000000Z")
	if err := os.Link(path, kept); err != nil {
		return "", err
	}
	if err := os.Rename(path+unfinished, path); err != nil {
		return "", err
	}
	return kept, database.Sync(filepath.Dir(path))
}
