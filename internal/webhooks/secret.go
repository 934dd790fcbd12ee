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

// hintLength is the length of a secret's hint: whsec_ and four more characters.
const hintLength = 10

// errSecretLost is the error of signing with a secret that was given up, because the
// server's secret key was lost.
var errSecretLost = models.Errorf(models.ExecutionFailed,
	"the agent's signing secret was lost; its owner must call rotateWebhookSecret, or setWebhook if it has no webhook")

// EncryptedColumns describes the encrypted columns of the signing secrets, for key
// rotation.
func EncryptedColumns() auth.EncryptedTable {
	return auth.EncryptedTable{
		Name: "secrets", KeyColumns: []string{"agent_id"}, Columns: []string{"encrypted", "previous"},
		Label: func(key []string) string { return key[0] },
	}
}

// EnsureSecret returns the agent's signing secret and creates one if there is none, or
// if it was lost. Show it to the agent once.
func (w *Webhooks) EnsureSecret(tx *database.Tx, agentID string) (string, error) {
	row, err := secretByAgent(tx.DB, agentID)
	if err != nil {
		return "", err
	}
	if row.Encrypted != nil && !auth.IsLost(row.Encrypted) {
		return w.decryptSecret(row.Encrypted, agentID)
	}
	secret := outbound.NewSecret()
	err = tx.Save(&models.Secret{AgentID: agentID, Encrypted: w.cipher.Encrypt([]byte(secret), agentID), Hint: secret[:hintLength]}).Error
	if err != nil {
		return "", fmt.Errorf("store secret: %w", err)
	}
	return secret, nil
}

// Secret returns the agent's current signing secret, or "" without one. It returns
// EXECUTION_FAILED if the secret was lost.
func (w *Webhooks) Secret(ctx context.Context, agentID string) (string, error) {
	row, err := secretByAgent(w.db.Read(ctx), agentID)
	if err != nil || row.Encrypted == nil {
		return "", err
	}
	return w.decryptSecret(row.Encrypted, agentID)
}

// SecretHint returns the first characters of the agent's signing secret, or ""
// without one.
func (w *Webhooks) SecretHint(ctx context.Context, agentID string) (string, error) {
	row, err := secretByAgent(w.db.Read(ctx), agentID)
	return row.Hint, err
}

// RotateSecret replaces the agent's signing secret and returns the new one. Show it
// to the agent once. Until overlap has passed, requests are also signed with the
// previous secret, and X-AgentMarket-Signature only with the previous one. An even
// older secret is dropped at once. With overlap 0 only the new secret is used.
// RotateSecret returns CONFLICT when the agent has no webhook.
func (w *Webhooks) RotateSecret(tx *database.Tx, agentID string, overlap time.Duration) (models.Webhook, string, error) {
	hook, err := webhookByAgent(tx.DB, agentID)
	if models.CodeOf(err) == models.NotFound {
		return models.Webhook{}, "", models.Errorf(models.Conflict, "no webhook is set; set one to get a secret")
	}
	if err != nil {
		return models.Webhook{}, "", err
	}
	row, err := secretByAgent(tx.DB, agentID)
	if err != nil {
		return models.Webhook{}, "", err
	}
	if row.Encrypted == nil {
		return models.Webhook{}, "", fmt.Errorf("rotate secret: agent %s has a webhook without a secret", agentID)
	}
	secret := outbound.NewSecret()
	next := models.Secret{AgentID: agentID, Encrypted: w.cipher.Encrypt([]byte(secret), agentID), Hint: secret[:hintLength]}
	if overlap > 0 && !auth.IsLost(row.Encrypted) {
		until := w.timestamp().Add(overlap)
		next.Previous, next.PreviousUntil = row.Encrypted, &until
	}
	if err = tx.Model(&next).Select("encrypted", "hint", "previous", "previous_until").Updates(&next).Error; err != nil {
		return models.Webhook{}, "", fmt.Errorf("rotate secret: %w", err)
	}
	return *hook, secret, nil
}

// signingSecrets returns the agent's current secret and, during an overlap, the
// previous one; otherwise previous is "".
func (w *Webhooks) signingSecrets(ctx context.Context, agentID string) (current, previous string, err error) {
	row, err := secretByAgent(w.db.Read(ctx), agentID)
	if err != nil {
		return "", "", err
	}
	if row.Encrypted == nil {
		return "", "", fmt.Errorf("agent %s has no signing secret", agentID)
	}
	if current, err = w.decryptSecret(row.Encrypted, agentID); err != nil {
		return "", "", err
	}
	if row.PreviousUntil == nil || w.timestamp() >= *row.PreviousUntil || auth.IsLost(row.Previous) {
		return current, "", nil
	}
	previous, err = w.decryptSecret(row.Previous, agentID)
	return current, previous, err
}

func (w *Webhooks) decryptSecret(encrypted []byte, agentID string) (string, error) {
	if auth.IsLost(encrypted) {
		return "", errSecretLost
	}
	plain, err := w.cipher.Decrypt(encrypted, agentID)
	if err != nil {
		return "", fmt.Errorf("decrypt signing secret of agent %s: %w", agentID, err)
	}
	return string(plain), nil
}

// secretByAgent returns the agent's row, or a zero row without one.
func secretByAgent(db *gorm.DB, agentID string) (models.Secret, error) {
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
