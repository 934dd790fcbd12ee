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

	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database to back up."`
	To       string `required:"" help:"Path of the backup file to create. Must not exist yet." placeholder:"FILE"`
}

// Run writes the backup, verifies its ledger and prints the ledger report.
func (c *backupCommand) Run(ctx context.Context, to client.Streams) error {
	bar := startProgress(to.Err, "writing the backup", unknownTotal)
	err := database.Backup(ctx, c.Database, c.To, func(state *database.Snapshot) error {
		bar.finish()
		return verifyLedger(state, to)
	})
	bar.finish()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Backup complete. It does not contain the secret key: store that separately (the configured key, or %s.key).\n", c.Database)
	return err
}

type restoreCommand struct {
	config.File `embed:""`

	From     string `required:"" help:"Path of the backup file." placeholder:"FILE"`
	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database to create. Must not exist yet."`
}

// Run restores the backup, verifies its ledger and prints the ledger report.
func (c *restoreCommand) Run(ctx context.Context, to client.Streams) error {
	bar := startProgress(to.Err, "restoring the backup", unknownTotal)
	err := database.Restore(ctx, c.From, c.Database, func(state *database.Snapshot) error {
		bar.finish()
		return verifyLedger(state, to)
	})
	bar.finish()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Restore complete. Start the server with the secret key of the original server, in AGENTMARKET_SECRET_KEY or in %s.key.\n", c.Database)
	return err
}
