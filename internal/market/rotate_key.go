package market

import (
	"context"
	"database/sql"
	"errors"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/models"
)

// RotateKey returns a new API key for the caller and revokes the old one at once.
func (m *Market) RotateKey(ctx context.Context, actor auth.Actor) (string, error) {
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "rotateApiKey", struct{}{}, func(tx *database.Tx) (string, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return "", err
		}
		if err := m.deps.Events.AppendNoID(tx, models.Event{Kind: models.KeyRevoked, AgentID: &actor.AgentID, CreatedAt: m.timestamp()}); err != nil {
			return "", err
		}
		if err := m.deps.Keys.Revoke(tx, actor.AgentID); err != nil {
			return "", err
		}
		if err := m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditKeyRotated, actor.AgentID); err != nil {
			return "", err
		}
		return m.deps.Keys.Create(tx, actor.AgentID)
	})
}

// RevokeKeys revokes every key of an agent for the operator, which also closes its
// connections. The agent keeps its tasks and credits. NOT_FOUND for an unknown agent.
func (m *Market) RevokeKeys(ctx context.Context, agentID string) error {
	return m.deps.DB.Write(ctx, func(tx *database.Tx) error {
		var id string
		err := tx.QueryRowForUpdate("SELECT id FROM agents WHERE id = ?", []any{agentID}, &id)
		if errors.Is(err, sql.ErrNoRows) {
			return models.Errorf(models.NotFound, "agent %q not found", agentID)
		}
		if err != nil {
			return err
		}
		if err := m.deps.Events.AppendNoID(tx, models.Event{Kind: models.KeyRevoked, AgentID: &agentID, CreatedAt: m.timestamp()}); err != nil {
			return err
		}
		if err := m.deps.Keys.Revoke(tx, agentID); err != nil {
			return err
		}
		return m.deps.Audit.Record(ctx, tx, models.OperatorActor, models.AuditKeysRevoked, agentID)
	})
}
