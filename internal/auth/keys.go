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
	// readTimeout is how long keys may take to be read: a connection can die without
	// a sign.
	readTimeout = 10 * time.Second
)

// KeyHash is the SHA-256 of an API key, the only form in which a key is kept.
type KeyHash [sha256.Size]byte

// HashKey returns the hash of a key in its text form.
func HashKey(key string) KeyHash { return sha256.Sum256([]byte(key)) }

// Keys knows the API keys. It is safe for concurrent use.
type Keys struct {
	db    *database.DB
	now   func() time.Time
	cache *lru.Cache[KeyHash, Actor]

	mu          sync.Mutex
	revocations int64 // so far; a key that was read before one is not cached after it

	// OnRevoked is told of every key that stops working, after the commit; its
	// open sockets are closed there. It may be nil.
	OnRevoked func(KeyHash)
	// OnUnknownKey is told of every key that came and is not known. It may be nil.
	OnUnknownKey func(context.Context)
}

// NewKeys returns the keys in db.
func NewKeys(db *database.DB, now func() time.Time) (*Keys, error) {
	cache, err := lru.New[KeyHash, Actor](cacheSize)
	if err != nil {
		return nil, err
	}
	return &Keys{db: db, now: now, cache: cache}, nil
}

// Create makes a key for an agent: 32 random bytes in hex. It is shown once.
func (k *Keys) Create(tx *database.Tx, agentID string) (string, error) {
	raw := make([]byte, keyBytes)
	_, _ = rand.Read(raw)
	key := hex.EncodeToString(raw)
	hash := HashKey(key)
	return key, tx.Create(&models.APIKey{Hash: hash[:], AgentID: agentID, CreatedAt: models.NewTime(k.now())}).Error
}

// Revoke ends every key of the agent with the commit.
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

// RequireActive refuses with UNAUTHENTICATED an actor whose key is revoked as the
// transaction has it: another process may have done it a moment ago.
func (k *Keys) RequireActive(tx *database.Tx, actor Actor) error {
	var good bool
	err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM api_keys WHERE hash = ? AND agent_id = ? AND revoked_at IS NULL)",
		[]any{actor.KeyHash[:], actor.AgentID}, &good)
	if err == nil && !good {
		return unknownKeyError()
	}
	return err
}

func unknownKeyError() error {
	return models.Errorf(models.Unauthenticated, "the API key is not known")
}

// InvalidateRevoked drops the revoked keys of an agent, when another process revoked them, or
// of all agents when none is named: it is not known which ones were revoked.
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

// Authenticate returns the agent behind a key. An unknown or revoked key is
// UNAUTHENTICATED. Once a revocation has been answered it finds the key no more;
// in other processes as soon as their event log has got there.
func (k *Keys) Authenticate(ctx context.Context, key string) (Actor, error) {
	hash := HashKey(key)
	if actor, ok := k.cache.Get(hash); ok {
		return actor, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	before := k.revocationCount()
	var row models.APIKey
	err := k.db.Read(ctx).Where("hash = ? AND revoked_at IS NULL", hash[:]).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		if k.OnUnknownKey != nil {
			k.OnUnknownKey(ctx)
		}
		return Actor{}, unknownKeyError()
	}
	if err != nil {
		return Actor{}, err
	}
	actor := Actor{AgentID: row.AgentID, KeyHash: hash}
	k.cacheActor(actor, before)
	return actor, nil
}

// revocationCount returns how many keys were revoked so far.
func (k *Keys) revocationCount() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.revocations
}

// cacheActor caches a key that was read after so many revocations. When there was
// another one since, it may have been this key's, and has already emptied the
// cache of it: then the key is left out.
func (k *Keys) cacheActor(actor Actor, before int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.revocations == before {
		k.cache.Add(actor.KeyHash, actor)
	}
}

// handleRevocation ends a key here.
func (k *Keys) handleRevocation(hash KeyHash) {
	k.evict(hash)
	if k.OnRevoked != nil {
		k.OnRevoked(hash)
	}
}

// evict takes a revoked key out of the cache for good.
func (k *Keys) evict(hash KeyHash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revocations++
	k.cache.Remove(hash)
}
