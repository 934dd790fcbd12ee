package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/ledger"
)

type verifyCommand struct {
	config.File `embed:""`

	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database, or a postgres:// address. Safe while the server runs."`
}

// Run recomputes the ledger and prints the report as JSON.
func (c *verifyCommand) Run(ctx context.Context, to client.Streams) error {
	return database.Inspect(ctx, c.Database, func(state *database.Snapshot) error { return verifyLedger(state, to) })
}

// verifyLedger prints the report of the ledger as JSON. It returns an error if the
// report has violations.
func verifyLedger(state *database.Snapshot, to client.Streams) error {
	bar := startProgress(to.Err, "recomputing the ledger", unknownTotal)
	report, err := ledger.Verify(state)
	bar.finish()
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(to.Out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(report); err != nil {
		return err
	}
	if n := len(report.Violations); n > 0 {
		return fmt.Errorf("the ledger has %d violations: keep a copy of the database for investigation", n)
	}
	return nil
}
