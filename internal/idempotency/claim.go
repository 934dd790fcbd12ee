package idempotency

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Claim is a request's claim on its idempotency key. A nil claim stands for a request
// without a key.
type Claim struct {
	row           models.IdempotencyKey
	cipher        *auth.Cipher
	runningTaskID *string // task of the first request, which has no response yet
}

// Response is the stored response of an operation: its value, or the error it ended
// with after its effects were committed, such as a failed execution.
type Response[Out any] struct {
	Value Out           `json:"value"`
	Error *models.Error `json:"refusal,omitempty"`
}

// Unpack returns the value and the error of a response.
func (r *Response[Out]) Unpack() (Out, error) {
	if r.Error != nil {
		return r.Value, r.Error
	}
	return r.Value, nil
}

// Acquire claims the key in tx. It returns the stored response when the key was used
// before, and nil when the caller must run the operation. A stored response marks the
// request as replayed. Errors are those of [Run].
func Acquire[Out any](ctx context.Context, tx *database.Tx, c *Claim) (*Response[Out], error) {
	if c == nil {
		return nil, nil //nolint:nilnil // no key, no stored response
	}
	row, err := c.insert(tx)
	if row == nil || err != nil {
		return nil, err
	}
	if row.CreatedAt.Add(KeyTTL) <= c.row.CreatedAt {
		return nil, tx.Save(&c.row).Error
	}
	stored, err := readResponse[Out](c, row)
	if err != nil {
		return nil, err
	}
	auth.RequestFrom(ctx).Replayed.Store(true)
	return stored, nil
}

// readResponse decrypts the response in the row of the claimed key. Errors are those of
// [Run].
func readResponse[Out any](c *Claim, row *models.IdempotencyKey) (*Response[Out], error) {
	if string(row.Fingerprint) != string(c.row.Fingerprint) {
		return nil, models.Errorf(models.IdempotencyReused, "the Idempotency-Key was used for another request")
	}
	if row.Response == nil {
		c.runningTaskID = row.TaskID
		return nil, models.Errorf(models.Conflict, "the first request with this Idempotency-Key is still running")
	}
	if auth.IsLost(row.Response) {
		return nil, models.Errorf(models.Conflict, "the request succeeded, but its stored response was lost with the server's secret key: query the result instead of retrying")
	}
	plain, err := c.cipher.Decrypt(row.Response, c.label())
	if err != nil {
		return nil, err
	}
	var stored Response[Out]
	if err := json.Unmarshal(plain, &stored); err != nil {
		return nil, fmt.Errorf("read the stored response: %w", err)
	}
	return &stored, nil
}

// insert writes the claim's row. If the key has a row already, insert locks and returns
// it.
func (c *Claim) insert(tx *database.Tx) (*models.IdempotencyKey, error) {
	result := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&c.row)
	if result.Error != nil || result.RowsAffected == 1 {
		return nil, result.Error
	}
	var row models.IdempotencyKey
	// The lock makes this a write transaction: its commit waits until a synchronous
	// standby has the commit of the stored response.
	err := tx.ForUpdate().Take(&row, "scope = ? AND key = ?", c.row.Scope, c.row.Key).Error
	if errors.Is(err, gorm.ErrRecordNotFound) { // expired, and pruned since the insert
		return nil, KeyExpiredError()
	}
	return &row, err
}

// Save stores a response under the claimed key.
func Save[Out any](tx *database.Tx, c *Claim, response Response[Out]) error {
	if c == nil {
		return nil
	}
	plain, err := json.Marshal(response)
	if err != nil {
		return fmt.Errorf("store a response: %w", err)
	}
	return tx.ExecOne("UPDATE idempotency_keys SET response = ? WHERE scope = ? AND key = ?", c.cipher.Encrypt(plain, c.label()), c.row.Scope, c.row.Key)
}

// BindTask records which task the operation works on, so that [Store.ForTask] finds the
// claim after the process that made it has stopped.
func (c *Claim) BindTask(tx *database.Tx, taskID string) error {
	if c == nil {
		return nil
	}
	return tx.ExecOne("UPDATE idempotency_keys SET task_id = ? WHERE scope = ? AND key = ?", taskID, c.row.Scope, c.row.Key)
}

// Lock locks the key's row again, in a later transaction than [Acquire]. It returns nil
// when the key has been pruned since.
func (c *Claim) Lock(tx *database.Tx) (*Claim, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // a nil claim has no row
	}
	var key string
	err := tx.QueryRowForUpdate("SELECT key FROM idempotency_keys WHERE scope = ? AND key = ?", []any{c.row.Scope, c.row.Key}, &key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // a nil claim has no row
	}
	return c, err
}

// RunningTask returns the task of the first request when [Acquire] returned CONFLICT
// because that request is still running.
func (c *Claim) RunningTask() (taskID string, ok bool) {
	if c == nil || c.runningTaskID == nil {
		return "", false
	}
	return *c.runningTaskID, true
}

// ForTask locks and returns the claim that is bound to a task and has no response yet,
// nil when there is none.
func (s *Store) ForTask(tx *database.Tx, taskID string) (*Claim, error) {
	var row models.IdempotencyKey
	err := tx.ForUpdate().Take(&row, "task_id = ? AND response IS NULL", taskID).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, nil //nolint:nilnil // most tasks have no claim
	}
	if err != nil {
		return nil, err
	}
	return &Claim{row: row, cipher: s.cipher}, nil
}

// EncryptedColumns describes the stored responses for re-encryption.
func EncryptedColumns() auth.EncryptedTable {
	return auth.EncryptedTable{
		Name: "idempotency_keys", KeyColumns: []string{"scope", "key"}, Columns: []string{"response"},
		Label: func(key []string) string { return label(key[0], key[1]) },
	}
}

func (c *Claim) label() string { return label(c.row.Scope, c.row.Key) }

func label(scope, key string) string { return "answer:" + scope + ":" + key }
