package webhooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/models"
)

// hintLength is the length of a secret's hint: whsec_ and four more characters.
const hintLength = 10

// maxPreviousSecrets limits the replaced secrets that still sign: each makes the header
// of every request longer.
const maxPreviousSecrets = 5

// errSecretLost is the error of signing with a secret that was given up, because the
// server's secret key was lost.
var errSecretLost = models.Errorf(models.ExecutionFailed,
	"the agent's signing secret was lost; its owner must call rotateWebhookSecret, or setWebhook if it has no webhook")

// EncryptedTables describes the tables of the signing secrets, for key rotation. A
// replaced secret moves from the first to the second.
func EncryptedTables() []auth.EncryptedTable {
	agentID := func(key []string) string { return key[0] }
	return []auth.EncryptedTable{
		{Name: "secrets", KeyColumns: []string{"agent_id"}, Columns: []string{"encrypted"}, Label: agentID},
		{Name: "previous_secrets", KeyColumns: []string{"agent_id", "id"}, Columns: []string{"encrypted"}, Label: agentID},
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
// replaced secret. Secrets replaced earlier sign until their overlap ends.
// X-AgentMarket-Signature has room for one signature and uses the oldest secret. With
// overlap 0 only the new secret is used, and all others end at once. RotateSecret
// returns CONFLICT when the agent has no webhook, and, unless overlap is 0, when
// maxPreviousSecrets still sign.
func (w *Webhooks) RotateSecret(tx *database.Tx, agentID string, overlap time.Duration) (models.Webhook, string, error) {
	hook, err := webhookByAgent(tx.DB, agentID)
	if models.CodeOf(err) == models.NotFound {
		return models.Webhook{}, "", models.Errorf(models.Conflict, "no webhook is set; set one to get a secret")
	}
	if err != nil {
		return models.Webhook{}, "", err
	}
	row, err := secretByAgent(tx.ForUpdate(), agentID) // locked: a rekey must find the secret in one of the tables
	if err != nil {
		return models.Webhook{}, "", err
	}
	if row.Encrypted == nil {
		return models.Webhook{}, "", fmt.Errorf("rotate secret: agent %s has a webhook without a secret", agentID)
	}
	if err := w.keepPrevious(tx, row, overlap); err != nil {
		return models.Webhook{}, "", err
	}
	secret := outbound.NewSecret()
	next := models.Secret{AgentID: agentID, Encrypted: w.cipher.Encrypt([]byte(secret), agentID), Hint: secret[:hintLength]}
	if err = tx.Model(&next).Select("encrypted", "hint").Updates(&next).Error; err != nil {
		return models.Webhook{}, "", fmt.Errorf("rotate secret: %w", err)
	}
	return *hook, secret, nil
}

// keepPrevious lets a replaced secret sign until overlap has passed. It deletes the
// secrets of the agent that sign no more: with overlap 0, all that were replaced.
func (w *Webhooks) keepPrevious(tx *database.Tx, replaced models.Secret, overlap time.Duration) error {
	now := w.timestamp()
	ended := tx.Where("agent_id = ?", replaced.AgentID)
	if overlap > 0 {
		ended = ended.Where("signs_until <= ?", now)
	}
	if err := ended.Delete(&models.PreviousSecret{}).Error; err != nil {
		return fmt.Errorf("delete ended secrets: %w", err)
	}
	if overlap == 0 || auth.IsLost(replaced.Encrypted) {
		return nil
	}
	var ends []models.Time
	err := tx.Model(&models.PreviousSecret{}).Where("agent_id = ?", replaced.AgentID).Order("signs_until").Pluck("signs_until", &ends).Error
	if err != nil {
		return fmt.Errorf("count previous secrets: %w", err)
	}
	if len(ends) >= maxPreviousSecrets {
		return models.Errorf(models.Conflict, "%d replaced secrets still sign, the first of them until %s; rotate after that, or end all of them with an overlap of 0",
			len(ends), ends[0])
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("keep previous secret: %w", err)
	}
	err = tx.Create(&models.PreviousSecret{AgentID: replaced.AgentID, ID: id.String(), Encrypted: replaced.Encrypted, SignsUntil: now.Add(overlap)}).Error
	if err != nil {
		return fmt.Errorf("keep previous secret: %w", err)
	}
	return nil
}

// signingSecrets returns the agent's current secret, followed by those that were
// replaced and still sign, from the newest to the oldest. One statement reads them all,
// so a concurrent rotation hides none.
func (w *Webhooks) signingSecrets(ctx context.Context, agentID string) ([]string, error) {
	var rows []struct {
		IsCurrent int
		Encrypted []byte
	}
	err := w.db.Read(ctx).Raw(`SELECT 1 AS is_current, '' AS id, encrypted FROM secrets WHERE agent_id = ?
		UNION ALL SELECT 0, id, encrypted FROM previous_secrets WHERE agent_id = ? AND signs_until > ?
		ORDER BY is_current DESC, id DESC`, agentID, agentID, w.timestamp()).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("read signing secrets: %w", err)
	}
	if len(rows) == 0 || rows[0].IsCurrent == 0 {
		return nil, fmt.Errorf("agent %s has no signing secret", agentID)
	}
	var secrets []string
	for _, row := range rows {
		if row.IsCurrent == 0 && auth.IsLost(row.Encrypted) {
			continue
		}
		secret, err := w.decryptSecret(row.Encrypted, agentID)
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// pruneSecrets deletes the replaced secrets that sign no more. It skips those that
// another transaction has locked: a rotation or a rekey.
func (w *Webhooks) pruneSecrets(ctx context.Context) error {
	now := w.timestamp()
	err := database.RunThrottled(ctx, func() (more bool, err error) {
		var ended []models.PreviousSecret
		if err := w.db.Read(ctx).Select("agent_id", "id").Where("signs_until <= ?", now).Limit(1).Find(&ended).Error; err != nil || len(ended) == 0 {
			return false, err
		}
		err = w.db.Write(ctx, func(tx *database.Tx) error {
			err := tx.ForUpdateSkipLocked().Select("agent_id", "id").Where("signs_until <= ?", now).Limit(prunePageSize).Find(&ended).Error
			for i := range ended {
				err = cmp.Or(err, tx.Delete(&ended[i]).Error)
			}
			return err
		})
		return len(ended) == prunePageSize, err
	})
	if err != nil {
		return fmt.Errorf("prune secrets: %w", err)
	}
	return nil
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
