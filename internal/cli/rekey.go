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

	Database     string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database, which no server may be at, or a postgres:// address."`
	SecretKey    string `env:"AGENTMARKET_SECRET_KEY" help:"The key to seal with; when empty the one beside the database is replaced with a new one."`
	OldSecretKey string `env:"AGENTMARKET_OLD_SECRET_KEY" help:"The key to replace, when the new one is given."`
}

// Validate refuses keys that nothing is to be sealed with.
func (c *rekeyCommand) Validate() error {
	switch {
	case c.SecretKey == "" && database.IsPostgres(c.Database):
		return errors.New("--secret-key: must be given with PostgreSQL, and the one to replace as --old-secret-key")
	case c.SecretKey == "" && c.OldSecretKey != "":
		return errors.New("--old-secret-key: is for a server that is given its secret key")
	}
	return config.CheckSecretKeys(c.SecretKey, c.OldSecretKey)
}

// Run says how far it has got.
func (c *rekeyCommand) Run(ctx context.Context, to client.Streams) error {
	shown := stepProgress{out: to.Err}
	defer shown.finish()
	terminal := app.IsTerminal(to.Err)
	tell := func(done auth.ReencryptProgress) {
		shown.update(done.Table, done.Rows, done.Total)
		if terminal && done.Rows < done.Total {
			return
		}
		_, _ = fmt.Fprintf(to.Err, "%-20s %10d looked at, %d sealed anew\n", done.Table, done.Rows, done.Changed)
	}
	kept, err := app.Rekey(ctx, app.RekeyOptions{Database: c.Database, SecretKey: c.SecretKey, OldSecretKey: c.OldSecretKey},
		app.NewLogger(to.Err, c.SecretKey, c.OldSecretKey), tell)
	if err != nil {
		return err
	}
	if kept != "" {
		_, err = fmt.Fprintf(to.Err, "Sealed anew. The old key is in %s: backups from before need it.\n", kept)
		return err
	}
	_, err = fmt.Fprintln(to.Err, "Sealed anew. Backups from before need the old key.")
	return err
}
