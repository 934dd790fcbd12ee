package cli

import (
	"context"
	"fmt"
	"strings"

	"agentmarket.space/server/internal/app"
	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/database"
)

type migrateCommand struct {
	config.File `embed:""`

	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database, or a postgres:// address. Stop the server first."`
	Status   bool   `help:"List pending migrations without applying them. Safe while the server runs."`
}

// Run applies the pending migrations and lists them. With --status it only lists
// them.
func (c *migrateCommand) Run(ctx context.Context, to client.Streams) (err error) {
	var before *database.SchemaStatus
	if c.Status {
		before, err = database.ReadSchemaStatus(ctx, c.Database)
	} else {
		bar := startProgress(to.Err, "applying migrations", unknownTotal)
		before, err = database.Migrate(ctx, c.Database, app.NewLogger(to.Err))
		bar.finish()
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(to.Out, c.report(before))
	return err
}

func (c *migrateCommand) report(before *database.SchemaStatus) string {
	verb, label := "was", "applied"
	if c.Status {
		verb, label = "is", "pending"
	}
	lines := []string{fmt.Sprintf("%s: schema version %s %d, latest is %d", before.Location, verb, before.Current, before.Latest)}
	for _, name := range before.Pending {
		lines = append(lines, label+": "+name)
	}
	if len(before.Pending) == 0 {
		lines = append(lines, "no pending migrations")
	}
	return strings.Join(lines, "\n") + "\n"
}
