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

	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database or a postgres:// address. A server may be at it."`
}

// Run prints the report as JSON.
func (c *verifyCommand) Run(ctx context.Context, to client.Streams) error {
	return database.Inspect(ctx, c.Database, func(state *database.Snapshot) error { return verifyLedger(state, to) })
}

// verifyLedger writes the report on a ledger and fails when a law does not hold.
func verifyLedger(state *database.Snapshot, to client.Streams) error {
	shown := startProgress(to.Err, "recomputing the ledger", unknownTotal)
	report, err := ledger.Verify(state)
	shown.finish()
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(to.Out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(report); err != nil {
		return err
	}
	if n := len(report.Violations); n > 0 {
		return fmt.Errorf("the ledger does not hold: %d violations; keep a copy of the database as it is", n)
	}
	return nil
}
