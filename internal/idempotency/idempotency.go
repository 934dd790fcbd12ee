package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// KeyTTL is how long a key replays its response. After that the key is free again.
const KeyTTL = 24 * time.Hour

const maxKeyLength = 255

// Store holds idempotency keys and their responses. It is safe for concurrent use.
type Store struct {
	db     *database.DB
	cipher *auth.Cipher
	now    func() time.Time
}

// NewStore returns a store that keeps keys in db and encrypts responses with cipher.
func NewStore(db *database.DB, cipher *auth.Cipher, now func() time.Time) *Store {
	return &Store{db: db, cipher: cipher, now: now}
}

// Run calls fn in a transaction and returns its response. If the request in ctx has an
// Idempotency-Key that was used before in scope, Run returns the stored response
// instead. Requests without a key always call fn.
//
// An error from fn rolls the transaction back and leaves the key unused.
// INVALID_INPUT for a malformed key, IDEMPOTENCY_KEY_REUSED for a key that was used
// with another operation or input, CONFLICT while the first request is running.
func Run[Out any](ctx context.Context, s *Store, scope, operation string, input any, fn func(*database.Tx) (Out, error)) (Out, error) {
	var out Out
	claim, err := s.NewClaim(ctx, scope, operation, input)
	if err != nil {
		return out, err
	}
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		stored, err := Acquire[Out](ctx, tx, claim)
		if err != nil {
			return err
		}
		if stored != nil {
			out, err = stored.Unpack()
			return err
		}
		if out, err = fn(tx); err != nil {
			return err
		}
		return Save(tx, claim, Response[Out]{Value: out})
	})
	return out, err
}

// Used reports whether the request's key was used in scope within [KeyTTL]. It is false
// for a request without a key. INVALID_INPUT for a malformed key.
func (s *Store) Used(ctx context.Context, scope string) (used bool, err error) {
	key, err := requestKey(ctx)
	if key == "" || err != nil {
		return false, err
	}
	key = hashKey(key)
	err = s.db.Read(ctx).Raw("SELECT EXISTS (SELECT 1 FROM idempotency_keys WHERE scope = ? AND key = ? AND created_at > ?)",
		scope, key, s.expiry()).Scan(&used).Error
	return used, err
}

// Find returns the stored response of an operation without claiming the request's key, nil
// if there is none. It is not a replay: a client may see the response only after [Run].
// Errors are those of [Run].
func Find[Out any](ctx context.Context, s *Store, scope, operation string, input any) (*Response[Out], error) {
	claim, err := s.NewClaim(ctx, scope, operation, input)
	if claim == nil || err != nil {
		return nil, err
	}
	var row models.IdempotencyKey
	err = s.db.Read(ctx).Take(&row, "scope = ? AND key = ? AND created_at > ?", scope, claim.row.Key, s.expiry()).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, nil //nolint:nilnil // no stored response
	}
	if err != nil {
		return nil, err
	}
	return readResponse[Out](claim, &row)
}

// KeyExpiredError returns the UNAVAILABLE error for a key that expired while its request was
// being served. The client should retry.
func KeyExpiredError() error {
	return models.Errorf(models.Unavailable, "the Idempotency-Key has just expired; send the request again")
}

// Prune deletes expired keys.
func (s *Store) Prune(ctx context.Context) error {
	return s.db.DeleteExpired(ctx, &models.IdempotencyKey{}, "scope, key", "created_at", s.expiry())
}

// expiry returns the time of the newest key that has expired.
func (s *Store) expiry() models.Time { return models.NewTime(s.now()).Add(-KeyTTL) }

// NewClaim prepares a claim on the request's key. It returns nil for a request without
// a key; the functions and methods that take a claim accept nil. The claim's
// fingerprint covers the operation and the JSON encoding of input.
func (s *Store) NewClaim(ctx context.Context, scope, operation string, input any) (*Claim, error) {
	key, err := requestKey(ctx)
	if key == "" || err != nil {
		return nil, err
	}
	body, err := json.Marshal(input)
	if err != nil {
		return nil, fmt.Errorf("fingerprint of %s: %w", operation, err)
	}
	fingerprint := sha256.Sum256(append([]byte(operation+"\n"), body...))
	row := models.IdempotencyKey{Scope: scope, Key: hashKey(key), Fingerprint: fingerprint[:], CreatedAt: models.NewTime(s.now())}
	return &Claim{row: row, cipher: s.cipher}, nil
}

// hashKey returns the form in which a key is stored. A copy of the database does not show
// keys, because with some of them a request gets an API key.
func hashKey(key string) string {
	hash := sha256.Sum256([]byte(key))
	return hex.EncodeToString(hash[:])
}

// requestKey returns the request's Idempotency-Key, empty when it has none.
func requestKey(ctx context.Context) (string, error) {
	key := auth.RequestFrom(ctx).IdempotencyKey
	if len(key) > maxKeyLength {
		return "", models.FieldErrorf("Idempotency-Key", "must have at most %d characters", maxKeyLength)
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", models.FieldErrorf("Idempotency-Key", "must be of visible ASCII characters")
	}
	return key, nil
}
