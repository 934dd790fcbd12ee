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

	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database or a postgres:// address; no server may be at it."`
	Status   bool   `help:"Say what there is to do and change nothing; a server may be at it."`
}

// Run says what it did, or with --status what there is to do.
func (c *migrateCommand) Run(ctx context.Context, to client.Streams) (err error) {
	var before *database.SchemaStatus
	if c.Status {
		before, err = database.ReadSchemaStatus(ctx, c.Database)
	} else {
		shown := startProgress(to.Err, "migrating", unknownTotal)
		before, err = database.Migrate(ctx, c.Database, app.NewLogger(to.Err))
		shown.finish()
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(to.Out, c.report(before))
	return err
}

func (c *migrateCommand) report(before *database.SchemaStatus) string {
	is, done := "was", "applied"
	if c.Status {
		is, done = "is", "to apply"
	}
	lines := []string{fmt.Sprintf("%s: the schema %s at %d, this program's is %d", before.Location, is, before.Current, before.Latest)}
	for _, name := range before.Pending {
		lines = append(lines, done+": "+name)
	}
	if len(before.Pending) == 0 {
		lines = append(lines, "nothing to apply")
	}
	return strings.Join(lines, "\n") + "\n"
}
