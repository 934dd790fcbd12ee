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
	From string `required:"" help:"Path of the SQLite database, which no server may be at."`
	To   string `required:"" help:"Address of the empty PostgreSQL database: postgres://…"`
}

// Validate refuses any other way round.
func (c *copyCommand) Validate() error {
	if database.IsPostgres(c.From) || !database.IsPostgres(c.To) {
		return errors.New("--from is the path of a SQLite database, --to a postgres:// address")
	}
	return nil
}

// Run says what it is at, and prints the ledger's report of both sides.
func (c *copyCommand) Run(ctx context.Context, to client.Streams) error {
	from := strings.TrimPrefix(c.From, "sqlite:")
	shown := stepProgress{out: to.Err}
	defer shown.finish()
	tell := func(done database.CopyProgress) {
		shown.update(done.Table, done.Rows, done.Total)
		if done.Rows == done.Total {
			_, _ = fmt.Fprintf(to.Err, "%-20s %10d\n", done.Table, done.Rows)
		}
	}
	err := database.Copy(ctx, from, c.To, app.NewLogger(to.Err), tell, func(state *database.Snapshot) error { return verifyLedger(state, to) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Copied. Serve it with the secret key of %s: the one it was given, or what is in %[1]s.key.\n", from)
	return err
}
