package webhooks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/models"
)

// hintLength is how much of a secret is shown later: whsec_ and four more.
const hintLength = 10

// Sealed are the secrets as they are kept.
func Sealed() auth.Sealed {
	return auth.Sealed{
		Table: "secrets", Key: []string{"agent_id"}, Columns: []string{"sealed", "old"},
		Label: func(key []string) string { return key[0] },
	}
}

// MintSecret returns the agent's signing secret and makes one when it has none.
// It is to be shown once.
func (w *Webhooks) MintSecret(tx *database.Tx, agentID string) (string, error) {
	row, err := secretOf(tx.DB, agentID)
	if err != nil {
		return "", err
	}
	if row.Sealed != nil {
		return w.unseal(row.Sealed, agentID)
	}
	secret := outbound.NewSecret()
	err = tx.Create(&models.Secret{AgentID: agentID, Sealed: w.box.Seal([]byte(secret), agentID), Hint: secret[:hintLength]}).Error
	if err != nil {
		return "", fmt.Errorf("keep secret: %w", err)
	}
	return secret, nil
}

// Secret returns the agent's current signing secret, empty when it has none.
func (w *Webhooks) Secret(ctx context.Context, agentID string) (string, error) {
	row, err := secretOf(w.db.Read(ctx), agentID)
	if err != nil || row.Sealed == nil {
		return "", err
	}
	return w.unseal(row.Sealed, agentID)
}

// SecretHint returns the first characters of the agent's signing secret, empty
// when it has none.
func (w *Webhooks) SecretHint(ctx context.Context, agentID string) (string, error) {
	row, err := secretOf(w.db.Read(ctx), agentID)
	return row.Hint, err
}

// Rotate replaces the agent's signing secret and returns the new one, which is
// to be shown once. Until the overlap ends the old secret signs too, and alone
// makes X-AgentMarket-Signature; with no overlap it ends at once, and so does an
// even older one. An agent without a webhook gets CONFLICT.
func (w *Webhooks) Rotate(tx *database.Tx, agentID string, overlap time.Duration) (models.Webhook, string, error) {
	hook, err := hookOf(tx.DB, agentID)
	if models.CodeOf(err) == models.NotFound {
		return models.Webhook{}, "", models.Errorf(models.Conflict, "no webhook is set: there is no secret to replace")
	}
	if err != nil {
		return models.Webhook{}, "", err
	}
	row, err := secretOf(tx.DB, agentID)
	if err != nil {
		return models.Webhook{}, "", err
	}
	if row.Sealed == nil {
		return models.Webhook{}, "", fmt.Errorf("rotate secret: agent %s has a webhook without a secret", agentID)
	}
	secret := outbound.NewSecret()
	next := models.Secret{AgentID: agentID, Sealed: w.box.Seal([]byte(secret), agentID), Hint: secret[:hintLength]}
	if overlap > 0 {
		until := w.stamp().Add(overlap)
		next.Old, next.OldUntil = row.Sealed, &until
	}
	if err = tx.Model(&next).Select("sealed", "hint", "old", "old_until").Updates(&next).Error; err != nil {
		return models.Webhook{}, "", fmt.Errorf("rotate secret: %w", err)
	}
	return *hook, secret, nil
}

// secrets returns what signs for the agent now: the current secret, and the old
// one while its overlap lasts, else an empty one.
func (w *Webhooks) secrets(ctx context.Context, agentID string) (current, old string, err error) {
	row, err := secretOf(w.db.Read(ctx), agentID)
	if err != nil {
		return "", "", err
	}
	if row.Sealed == nil {
		return "", "", fmt.Errorf("agent %s has no secret to sign with", agentID)
	}
	if current, err = w.unseal(row.Sealed, agentID); err != nil {
		return "", "", err
	}
	if row.OldUntil == nil || w.stamp() >= *row.OldUntil {
		return current, "", nil
	}
	old, err = w.unseal(row.Old, agentID)
	return current, old, err
}

func (w *Webhooks) unseal(sealed []byte, agentID string) (string, error) {
	plain, err := w.box.Open(sealed, agentID)
	if err != nil {
		return "", fmt.Errorf("signing secret of agent %s: %w", agentID, err)
	}
	return string(plain), nil
}

// secretOf returns the agent's row, an empty one when it has none.
func secretOf(db *gorm.DB, agentID string) (models.Secret, error) {
	var row models.Secret
	err := db.Where("agent_id = ?", agentID).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return models.Secret{}, nil
	}
	if err != nil {
		return models.Secret{}, fmt.Errorf("read secret: %w", err)
	}
	return row, nil
}
