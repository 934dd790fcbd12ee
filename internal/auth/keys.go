package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

const (
	keyBytes  = 32
	cacheSize = 100_000 // keys; about 100 bytes each
	// readTimeout limits a query for keys. A connection can break without an error.
	readTimeout = 10 * time.Second
)

// KeyHash is the SHA-256 of an API key. The key itself is not stored.
type KeyHash [sha256.Size]byte

// HashKey returns the hash of a key.
func HashKey(key string) KeyHash { return sha256.Sum256([]byte(key)) }

// KeyHooks are functions that [Keys] calls. Each of them can be nil.
type KeyHooks struct {
	// OnRevoked runs after a key was revoked, to close its connections. On the replica
	// that revokes the key it runs after the commit.
	OnRevoked func(KeyHash)
	// OnUnknown runs when a request has an unknown or revoked key.
	OnUnknown func(context.Context)
}

// Keys authenticates API keys. It is safe for concurrent use.
type Keys struct {
	db    *database.DB
	now   func() time.Time
	hooks KeyHooks
	cache *lru.Cache[KeyHash, Actor]

	mu          sync.Mutex
	revocations int64 // keys revoked since the start; see cacheActor
}

// NewKeys returns the keys in db.
func NewKeys(db *database.DB, now func() time.Time, hooks KeyHooks) (*Keys, error) {
	cache, err := lru.New[KeyHash, Actor](cacheSize)
	if err != nil {
		return nil, err
	}
	return &Keys{db: db, now: now, hooks: hooks, cache: cache}, nil
}

// Create creates a key for an agent and returns it: 32 random bytes in hex. The key
// cannot be read again.
func (k *Keys) Create(tx *database.Tx, agentID string) (string, error) {
	raw := make([]byte, keyBytes)
	_, _ = rand.Read(raw)
	key := hex.EncodeToString(raw)
	hash := HashKey(key)
	return key, tx.Create(&models.APIKey{Hash: hash[:], AgentID: agentID, CreatedAt: models.NewTime(k.now())}).Error
}

// Revoke revokes all keys of an agent with the commit.
func (k *Keys) Revoke(tx *database.Tx, agentID string) error {
	var keys []models.APIKey
	if err := tx.Where("agent_id = ? AND revoked_at IS NULL", agentID).Find(&keys).Error; err != nil {
		return err
	}
	err := tx.Model(&models.APIKey{}).Where("agent_id = ? AND revoked_at IS NULL", agentID).
		Update("revoked_at", models.NewTime(k.now())).Error
	if err != nil {
		return err
	}
	tx.OnCommit(func() {
		for _, key := range keys {
			k.handleRevocation(KeyHash(key.Hash))
		}
	})
	return nil
}

// RequireActive returns UNAUTHENTICATED if the actor's key is revoked in the
// database. The cache can be stale for a moment after another process revokes a key.
func (k *Keys) RequireActive(tx *database.Tx, actor Actor) error {
	var active bool
	err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM api_keys WHERE hash = ? AND agent_id = ? AND revoked_at IS NULL)",
		[]any{actor.KeyHash[:], actor.AgentID}, &active)
	if err == nil && !active {
		return UnknownKeyError()
	}
	return err
}

// UnknownKeyError returns the UNAUTHENTICATED error for an unknown or revoked key.
func UnknownKeyError() error {
	return models.Errorf(models.Unauthenticated, "unknown API key")
}

// InvalidateRevoked removes an agent's revoked keys from the cache and runs OnRevoked
// for them. It is for keys that another process revoked. If agentID is empty, it
// does so for all agents.
func (k *Keys) InvalidateRevoked(ctx context.Context, agentID string) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	query := k.db.Read(ctx).Where("revoked_at IS NOT NULL")
	if agentID != "" {
		query = query.Where("agent_id = ?", agentID)
	}
	var keys []models.APIKey
	if err := query.Find(&keys).Error; err != nil {
		return err
	}
	for _, key := range keys {
		k.handleRevocation(KeyHash(key.Hash))
	}
	return nil
}

// Authenticate returns the agent of a key. It returns UNAUTHENTICATED for an unknown
// or revoked key. A revocation takes effect in this process before it returns, and
// in other processes when they read its event.
func (k *Keys) Authenticate(ctx context.Context, key string) (Actor, error) {
	hash := HashKey(key)
	if actor, ok := k.cache.Get(hash); ok {
		return actor, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	revocations := k.revocationCount()
	var row models.APIKey
	err := k.db.Read(ctx).Where("hash = ? AND revoked_at IS NULL", hash[:]).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		if k.hooks.OnUnknown != nil {
			k.hooks.OnUnknown(ctx)
		}
		return Actor{}, UnknownKeyError()
	}
	if err != nil {
		return Actor{}, err
	}
	actor := Actor{AgentID: row.AgentID, KeyHash: hash}
	k.cacheActor(actor, revocations)
	return actor, nil
}

// FindRevoked returns the agent of a revoked key, with Actor.Replaced set. The caller
// decides what the actor may do. UNAUTHENTICATED for any other key.
func (k *Keys) FindRevoked(ctx context.Context, key string) (Actor, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	hash := HashKey(key)
	var row models.APIKey
	err := k.db.Read(ctx).Where("hash = ? AND revoked_at IS NOT NULL", hash[:]).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return Actor{}, UnknownKeyError()
	}
	return Actor{AgentID: row.AgentID, KeyHash: hash, Replaced: true}, err
}

// revocationCount returns the number of keys revoked since the start.
func (k *Keys) revocationCount() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.revocations
}

// cacheActor caches a key that was read when the revocation count was revocations. If
// the count has changed, the key may have been revoked and evicted, so cacheActor
// does nothing.
func (k *Keys) cacheActor(actor Actor, revocations int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.revocations == revocations {
		k.cache.Add(actor.KeyHash, actor)
	}
}

// handleRevocation evicts a revoked key and runs OnRevoked.
func (k *Keys) handleRevocation(hash KeyHash) {
	k.evict(hash)
	if k.hooks.OnRevoked != nil {
		k.hooks.OnRevoked(hash)
	}
}

// evict removes a revoked key from the cache and prevents concurrent calls of
// Authenticate from caching it again.
func (k *Keys) evict(hash KeyHash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revocations++
	k.cache.Remove(hash)
}
