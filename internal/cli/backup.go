package cli

import (
	"context"
	"fmt"

	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/database"
)

type backupCommand struct {
	config.File `embed:""`

	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database."`
	To       string `required:"" help:"Path of the backup, where nothing may be."`
}

// Run prints the ledger's report of the backup.
func (c *backupCommand) Run(ctx context.Context, to client.Streams) error {
	shown := startProgress(to.Err, "writing the backup", unknownTotal)
	err := database.Backup(ctx, c.Database, c.To, func(state *database.Snapshot) error {
		shown.finish()
		return verifyLedger(state, to)
	})
	shown.finish()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Backed up. Keep the secret key elsewhere: the one the server was given, or what is in %s.key.\n", c.Database)
	return err
}

type restoreCommand struct {
	config.File `embed:""`

	From     string `required:"" help:"Path of the backup."`
	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database, where nothing may be."`
}

// Run prints the ledger's report of what is restored.
func (c *restoreCommand) Run(ctx context.Context, to client.Streams) error {
	shown := startProgress(to.Err, "restoring", unknownTotal)
	err := database.Restore(ctx, c.From, c.Database, func(state *database.Snapshot) error {
		shown.finish()
		return verifyLedger(state, to)
	})
	shown.finish()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Restored. Serve it with the secret key of the server that was backed up, given or in %s.key.\n", c.Database)
	return err
}
