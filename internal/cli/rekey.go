package cli

import (
	"context"
	"errors"
	"fmt"

	"agentmarket.space/server/internal/app"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/database"
)

type rekeyCommand struct {
	config.File `embed:""`

	Database     string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database, or a postgres:// address. Stop a SQLite server first."`
	SecretKey    string `env:"AGENTMARKET_SECRET_KEY" help:"New secret key. If empty, a new key replaces the key file next to the SQLite database." placeholder:"KEY"`
	OldSecretKey string `env:"AGENTMARKET_OLD_SECRET_KEY" help:"Current secret key. Required if a new key is given." placeholder:"KEY"`
}

// Validate returns an error for keys that are missing or too short.
func (c *rekeyCommand) Validate() error {
	switch {
	case c.SecretKey == "" && database.IsPostgres(c.Database):
		return errors.New("--secret-key: must be set for PostgreSQL, with the current key as --old-secret-key")
	case c.SecretKey == "" && c.OldSecretKey != "":
		return errors.New("--old-secret-key: requires --secret-key")
	}
	return config.CheckSecretKeys(c.SecretKey, c.OldSecretKey)
}

// Run re-encrypts all secrets and prints its progress.
func (c *rekeyCommand) Run(ctx context.Context, to client.Streams) error {
	bar := stepProgress{out: to.Err}
	defer bar.finish()
	terminal := app.IsTerminal(to.Err)
	onProgress := func(p auth.ReencryptProgress) {
		bar.update(p.Table, p.Rows, p.Total)
		if terminal && p.Rows < p.Total {
			return
		}
		_, _ = fmt.Fprintf(to.Err, "%-20s %10d rows checked, %d re-encrypted\n", p.Table, p.Rows, p.Changed)
	}
	oldKeyPath, err := app.Rekey(ctx, app.RekeyOptions{Database: c.Database, SecretKey: c.SecretKey, OldSecretKey: c.OldSecretKey},
		app.NewLogger(to.Err, c.SecretKey, c.OldSecretKey), onProgress)
	if err != nil {
		return err
	}
	if oldKeyPath != "" {
		_, err = fmt.Fprintf(to.Err, "Re-encryption complete. Keep the old key, older backups need it: %s\n", oldKeyPath)
		return err
	}
	_, err = fmt.Fprintln(to.Err, "Re-encryption complete. Keep the old key, older backups need it.")
	return err
}
