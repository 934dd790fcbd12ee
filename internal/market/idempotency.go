package market

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

const (
	maxIdempotencyKeyLength = 255
	// minAnonymousKeyLength keeps strangers from guessing the key of a
	// registration, whose answer holds an API key.
	minAnonymousKeyLength = 16
)

// IdempotencyKeyTTL is how long an Idempotency-Key answers as it did the first time.
const IdempotencyKeyTTL = 24 * time.Hour

// storedResponse is what is kept under an idempotency key: what the verb returned, or
// the refusal of an effect that did happen, such as an execution that failed.
type storedResponse[Out any] struct {
	Value Out           `json:"value"`
	Error *models.Error `json:"refusal,omitempty"`
}

// claim is a request's hold on its idempotency key.
type claim struct {
	row           models.IdempotencyKey
	sealer        *auth.Cipher
	runningTaskID *string // the task of the same request before, which has no answer yet
}

// EncryptedColumns are the kept answers as they are kept.
func EncryptedColumns() auth.EncryptedTable {
	return auth.EncryptedTable{
		Name: "idempotency_keys", KeyColumns: []string{"scope", "key"}, Columns: []string{"answer"},
		Label: func(key []string) string { return responseLabel(key[0], key[1]) },
	}
}

// idempotent runs effect in a transaction. With an Idempotency-Key it runs at most
// once: the key is claimed first and the answer kept in that same transaction,
// and a later request with the same key and input gets the answer again. The
// same key with another input is IDEMPOTENCY_KEY_REUSED.
func idempotent[In, Out any](ctx context.Context, m *Market, scope, verb string, in In, effect func(*database.Tx) (Out, error)) (Out, error) {
	var out Out
	c, err := m.newClaim(ctx, scope, verb, in)
	if err != nil {
		return out, err
	}
	err = m.DB.Write(ctx, func(tx *database.Tx) error {
		kept, err := claimOrReplay[Out](ctx, tx, c)
		if kept != nil || err != nil {
			return unpackResponse(&out, kept, err)
		}
		if out, err = effect(tx); err != nil {
			return err
		}
		return saveResponse(tx, c, storedResponse[Out]{Value: out})
	})
	return out, err
}

// checkUnlessReplayed runs a look at something outside the store, unless the request's
// Idempotency-Key was used before: what is answered then does not depend on it. It
// reports whether that is so; an effect that is run all the same is errKeyExpired.
func (m *Market) checkUnlessReplayed(ctx context.Context, scope string, look func() error) (kept bool, err error) {
	key, err := requestKey(ctx)
	if err == nil && key != "" {
		err = m.DB.Read(ctx).Raw("SELECT EXISTS (SELECT 1 FROM idempotency_keys WHERE scope = ? AND key = ? AND created_at > ?)",
			scope, key, m.now().Add(-IdempotencyKeyTTL)).Scan(&kept).Error
	}
	if kept || err != nil {
		return kept, err
	}
	return false, look()
}

// errKeyExpired refuses a request whose key was kept until just now.
func errKeyExpired() error {
	return models.Errorf(models.Unavailable, "the Idempotency-Key has just been forgotten; try again")
}

// unpackResponse hands out an answer that was kept.
func unpackResponse[Out any](out *Out, kept *storedResponse[Out], err error) error {
	if err != nil {
		return err
	}
	*out = kept.Value
	if kept.Error != nil {
		return kept.Error
	}
	return nil
}

// newClaim prepares a request's hold on its key; nil without a key.
func (m *Market) newClaim(ctx context.Context, scope, verb string, in any) (*claim, error) {
	key, err := requestKey(ctx)
	if key == "" || err != nil {
		return nil, err // a nil claim is a request without a key, and every use of it says so
	}
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("fingerprint of %s: %w", verb, err)
	}
	fingerprint := sha256.Sum256(append([]byte(verb+"\n"), body...))
	return &claim{sealer: m.Cipher, row: models.IdempotencyKey{Scope: scope, Key: key, Fingerprint: fingerprint[:], CreatedAt: m.now()}}, nil
}

// requestKey is the request's Idempotency-Key, empty when it has none.
func requestKey(ctx context.Context) (string, error) {
	key := auth.RequestFrom(ctx).IdempotencyKey
	if len(key) > maxIdempotencyKeyLength {
		return "", models.Invalid("Idempotency-Key", "must have at most %d characters", maxIdempotencyKeyLength)
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", models.Invalid("Idempotency-Key", "must be of visible ASCII characters")
	}
	return key, nil
}

// claimOrReplay claims the key. It returns the kept answer when the key was used
// before, nil when the effect is to be run now.
func claimOrReplay[Out any](ctx context.Context, tx *database.Tx, c *claim) (*storedResponse[Out], error) {
	if c == nil {
		return nil, nil //nolint:nilnil // nothing was kept
	}
	result := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&c.row)
	if result.Error != nil {
		return nil, result.Error
	}
	if result.RowsAffected == 1 {
		return nil, nil //nolint:nilnil // nothing was kept
	}
	var row models.IdempotencyKey
	// The lock is a write too: the commit, and with it the answer, waits until a
	// synchronous standby has what the answer tells of.
	err := tx.ForUpdate().Take(&row, "scope = ? AND key = ?", c.row.Scope, c.row.Key).Error
	if errors.Is(err, gorm.ErrRecordNotFound) { // it was old, and forgotten in between
		return nil, errKeyExpired()
	}
	if err != nil {
		return nil, err
	}
	if row.CreatedAt.Add(IdempotencyKeyTTL) <= c.row.CreatedAt {
		return nil, tx.Save(&c.row).Error
	}
	if string(row.Fingerprint) != string(c.row.Fingerprint) {
		return nil, models.Errorf(models.IdempotencyReused, "the Idempotency-Key was used for another request")
	}
	if row.Response == nil {
		c.runningTaskID = row.TaskID
		return nil, models.Errorf(models.Conflict, "the first request with this Idempotency-Key is still running")
	}
	plain, err := c.sealer.Decrypt(row.Response, c.label())
	if err != nil {
		return nil, err
	}
	var kept storedResponse[Out]
	if err := json.Unmarshal(plain, &kept); err != nil {
		return nil, fmt.Errorf("read a kept answer: %w", err)
	}
	auth.RequestFrom(ctx).Replayed.Store(true)
	return &kept, nil
}

// saveResponse keeps an answer under its key.
func saveResponse[Out any](tx *database.Tx, c *claim, kept storedResponse[Out]) error {
	if c == nil {
		return nil
	}
	plain, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("keep an answer: %w", err)
	}
	return tx.ExecOne("UPDATE idempotency_keys SET answer = ? WHERE scope = ? AND key = ?", c.sealer.Encrypt(plain, c.label()), c.row.Scope, c.row.Key)
}

// lockKey locks the key, which comes before everything else that is locked. It
// returns nil when the key has been forgotten.
func (c *claim) lockKey(tx *database.Tx) (*claim, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // see claim
	}
	var key string
	err := tx.QueryRowForUpdate("SELECT key FROM idempotency_keys WHERE scope = ? AND key = ?", []any{c.row.Scope, c.row.Key}, &key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // see claim
	}
	return c, err
}

func (c *claim) label() string { return responseLabel(c.row.Scope, c.row.Key) }

func responseLabel(scope, key string) string { return "answer:" + scope + ":" + key }

// bindTask notes which task a claim is about, so that the answer can be kept even
// when the process that claimed it is gone.
func (c *claim) bindTask(tx *database.Tx, taskID string) error {
	if c == nil {
		return nil
	}
	return tx.ExecOne("UPDATE idempotency_keys SET task_id = ? WHERE scope = ? AND key = ?", taskID, c.row.Scope, c.row.Key)
}

// findClaim finds the claim that was bound to a task and has no answer yet; nil
// when there is none.
func (m *Market) findClaim(tx *database.Tx, taskID string) (*claim, error) {
	var row models.IdempotencyKey
	err := tx.ForUpdate().Take(&row, "task_id = ? AND answer IS NULL", taskID).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, nil //nolint:nilnil // most tasks have no claim
	}
	if err != nil {
		return nil, err
	}
	return &claim{row: row, sealer: m.Cipher}, nil
}
