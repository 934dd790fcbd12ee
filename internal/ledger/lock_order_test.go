package ledger

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/models"
)

// recordingConnPool records the agents whose wallets a transaction locks.
type recordingConnPool struct {
	gorm.ConnPool
	lockedAgents []string
}

// QueryRowContext records the agent and runs the query.
func (p *recordingConnPool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	for _, arg := range args {
		if agent, ok := arg.(string); ok {
			p.lockedAgents = append(p.lockedAgents, agent)
		}
	}
	return p.ConnPool.QueryRowContext(ctx, query, args...)
}

// TestWalletsAreLockedInOrder checks that a move locks its wallets in the order of the
// agent IDs, whatever the order of its transfers. Otherwise concurrent moves could
// deadlock.
func TestWalletsAreLockedInOrder(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), services.SQLitePath(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	const agents = 16 // enough to make a sorted order by chance impossible
	err = db.Write(t.Context(), func(tx *database.Tx) error {
		var transfers []models.Transfer
		for range agents {
			agent := models.Agent{ID: uuid.NewString(), Name: "Agent", Capabilities: []string{}, PricePerTask: 1}
			if err := errors.Join(tx.Create(&agent).Error, tx.Create(&models.Wallet{AgentID: agent.ID}).Error); err != nil {
				return err
			}
			transfers = append(transfers, models.Transfer{DebitAccount: models.IssuanceAccount, CreditAccount: models.AvailableAccount(agent.ID)})
		}
		recorder := &recordingConnPool{ConnPool: tx.Statement.ConnPool}
		recorded := &database.Tx{DB: tx.Session(&gorm.Session{NewDB: true, Context: t.Context()})} // a copy with another connection pool
		recorded.Statement.ConnPool = recorder
		if _, err := lockWallets(recorded, transfers); err != nil {
			return err
		}
		if len(recorder.lockedAgents) != agents || !slices.IsSorted(recorder.lockedAgents) {
			t.Errorf("locked %d wallets in the order %v", len(recorder.lockedAgents), recorder.lockedAgents)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
