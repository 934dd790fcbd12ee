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

// recordingConnPool notes of which wallets a transaction asks.
type recordingConnPool struct {
	gorm.ConnPool
	lockedAgents []string
}

// QueryRowContext notes the agent and asks the store.
func (a *recordingConnPool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	for _, arg := range args {
		if agent, ok := arg.(string); ok {
			a.lockedAgents = append(a.lockedAgents, agent)
		}
	}
	return a.ConnPool.QueryRowContext(ctx, query, args...)
}

// TestWalletsAreLockedInOrder: a move locks its wallets in the order of their
// agents' ids, however the transfers name them. Two moves that share wallets
// would wait for each other in a ring otherwise.
func TestWalletsAreLockedInOrder(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), services.SQLitePath(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	const agents = 16 // that they come in order by chance is out of the question
	err = db.Write(t.Context(), func(tx *database.Tx) error {
		var transfers []models.Transfer
		for range agents {
			agent := models.Agent{ID: uuid.NewString(), Name: "Agent", Capabilities: []string{}, PricePerTask: 1}
			if err := errors.Join(tx.Create(&agent).Error, tx.Create(&models.Wallet{AgentID: agent.ID}).Error); err != nil {
				return err
			}
			transfers = append(transfers, models.Transfer{DebitAccount: models.Issuance, CreditAccount: models.AvailableAccount(agent.ID)})
		}
		notes := &recordingConnPool{ConnPool: tx.Statement.ConnPool}
		noted := &database.Tx{DB: tx.Session(&gorm.Session{NewDB: true, Context: t.Context()})} // a copy, whose store can be another
		noted.Statement.ConnPool = notes
		if _, err := lockWallets(noted, transfers); err != nil {
			return err
		}
		if len(notes.lockedAgents) != agents || !slices.IsSorted(notes.lockedAgents) {
			t.Errorf("%d wallets were locked, in this order: %v", len(notes.lockedAgents), notes.lockedAgents)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
