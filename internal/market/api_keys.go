package market

import (
	"bytes"
	"context"
	"database/sql"
	"errors"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/models"
)

// rotateOperation names RotateKey in the fingerprint of an Idempotency-Key.
const rotateOperation = "rotateApiKey"

// rotation is the stored response of RotateKey.
type rotation struct {
	APIKey string
	OldKey []byte // hash of the key that APIKey replaced
}

// RotateKey returns a new API key for the caller and revokes the old one at once. An actor
// of [Market.AuthenticateReplaced] gets the key that replaced its own. INVALID_INPUT for an
// Idempotency-Key that is easy to guess, UNAUTHENTICATED if the caller's key was revoked.
func (m *Market) RotateKey(ctx context.Context, actor auth.Actor) (string, error) {
	if err := checkKeyLength(auth.RequestFrom(ctx)); err != nil {
		return "", err
	}
	out, err := idempotency.Run(ctx, m.idempotency, actor.AgentID, rotateOperation, struct{}{}, func(tx *database.Tx) (rotation, error) {
		if err := m.lockAgent(tx, actor); err != nil {
			return rotation{}, err
		}
		if err := m.deps.Events.AppendNoID(tx, models.Event{Kind: models.KeyRevoked, AgentID: &actor.AgentID, CreatedAt: m.timestamp()}); err != nil {
			return rotation{}, err
		}
		if err := m.deps.Keys.Revoke(tx, actor.AgentID); err != nil {
			return rotation{}, err
		}
		if err := m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditKeyRotated, actor.AgentID); err != nil {
			return rotation{}, err
		}
		key, err := m.deps.Keys.Create(tx, actor.AgentID)
		return rotation{APIKey: key, OldKey: actor.KeyHash[:]}, err
	})
	if err != nil {
		return "", err
	}
	if actor.Replaced {
		if err := m.checkRotation(ctx, actor, out); err != nil {
			return "", err
		}
	}
	return out.APIKey, nil
}

// AuthenticateReplaced returns the agent of an API key that was replaced in the last 24
// hours by a request with the same Idempotency-Key. The agent may not have received the
// new key. The actor can only call [Market.RotateKey], to get the new key again.
// UNAUTHENTICATED for any other key, and after the new key was revoked too.
func (m *Market) AuthenticateReplaced(ctx context.Context, key string) (auth.Actor, error) {
	request := auth.RequestFrom(ctx)
	if request.IdempotencyKey == "" || checkKeyLength(request) != nil {
		return auth.Actor{}, auth.UnknownKeyError()
	}
	actor, err := m.deps.Keys.FindRevoked(ctx, key)
	if err != nil {
		return auth.Actor{}, err
	}
	stored, err := idempotency.Find[rotation](ctx, m.idempotency, actor.AgentID, rotateOperation, struct{}{})
	switch {
	case err != nil && models.CodeOf(err) == models.Internal:
		return auth.Actor{}, err
	case err != nil || stored == nil:
		return auth.Actor{}, auth.UnknownKeyError()
	}
	return actor, m.checkRotation(ctx, actor, stored.Value)
}

// checkRotation returns UNAUTHENTICATED unless the new key of a rotation replaced the
// actor's key and is still valid.
func (m *Market) checkRotation(ctx context.Context, actor auth.Actor, r rotation) error {
	if !bytes.Equal(r.OldKey, actor.KeyHash[:]) {
		return auth.UnknownKeyError()
	}
	_, err := m.deps.Keys.Authenticate(ctx, r.APIKey)
	return err
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
