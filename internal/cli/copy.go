package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"agentmarket.space/server/internal/app"
	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/database"
)

type copyCommand struct {
	From string `required:"" help:"Path of the SQLite database. Stop the server first." placeholder:"FILE"`
	To   string `required:"" help:"Address of an empty PostgreSQL database, like postgres://user@host/name." placeholder:"URL"`
}

// Validate accepts only a copy from SQLite to PostgreSQL.
func (c *copyCommand) Validate() error {
	if database.IsPostgres(c.From) || !database.IsPostgres(c.To) {
		return errors.New("--from must be the path of a SQLite database and --to a postgres:// address")
	}
	return nil
}

// Run copies all tables, prints its progress, and prints the ledger reports of both
// databases.
func (c *copyCommand) Run(ctx context.Context, to client.Streams) error {
	from := strings.TrimPrefix(c.From, "sqlite:")
	bar := stepProgress{out: to.Err}
	defer bar.finish()
	onProgress := func(p database.CopyProgress) {
		bar.update(p.Table, p.Rows, p.Total)
		if p.Rows == p.Total {
			_, _ = fmt.Fprintf(to.Err, "%-20s %10d rows\n", p.Table, p.Rows)
		}
	}
	err := database.Copy(ctx, from, c.To, app.NewLogger(to.Err), onProgress, func(state *database.Snapshot) error { return verifyLedger(state, to) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Copy complete. Start the server on PostgreSQL with the same secret key: the configured key, or the contents of %s.key.\n", from)
	return err
}
