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
	// readTime is how long keys may take to be read: a connection can die without
	// a sign.
	readTime = 10 * time.Second
)

// Hash is the SHA-256 of an API key, the only form in which a key is kept.
type Hash [sha256.Size]byte

// HashKey returns the hash of a key in its text form.
func HashKey(key string) Hash { return sha256.Sum256([]byte(key)) }

// Keys knows the API keys. It is safe for concurrent use.
type Keys struct {
	db    *database.DB
	now   func() time.Time
	cache *lru.Cache[Hash, Actor]

	mu          sync.Mutex
	revocations int64 // so far; a key that was read before one is not cached after it

	// Revoked is told of every key that stops working, after the commit; its
	// open sockets are closed there. It may be nil.
	Revoked func(Hash)
	// Refused is told of every key that came and is not known. It may be nil.
	Refused func(context.Context)
}

// NewKeys returns the keys in db.
func NewKeys(db *database.DB, now func() time.Time) (*Keys, error) {
	cache, err := lru.New[Hash, Actor](cacheSize)
	if err != nil {
		return nil, err
	}
	return &Keys{db: db, now: now, cache: cache}, nil
}

// Mint makes a key for an agent: 32 random bytes in hex. It is shown once.
func (k *Keys) Mint(tx *database.Tx, agentID string) (string, error) {
	raw := make([]byte, keyBytes)
	_, _ = rand.Read(raw)
	key := hex.EncodeToString(raw)
	hash := HashKey(key)
	return key, tx.Create(&models.APIKey{Hash: hash[:], AgentID: agentID, CreatedAt: models.At(k.now())}).Error
}

// Revoke ends every key of the agent with the commit.
func (k *Keys) Revoke(tx *database.Tx, agentID string) error {
	var keys []models.APIKey
	if err := tx.Where("agent_id = ? AND revoked_at IS NULL", agentID).Find(&keys).Error; err != nil {
		return err
	}
	err := tx.Model(&models.APIKey{}).Where("agent_id = ? AND revoked_at IS NULL", agentID).
		Update("revoked_at", models.At(k.now())).Error
	if err != nil {
		return err
	}
	tx.OnCommit(func() {
		for _, key := range keys {
			k.revoke(Hash(key.Hash))
		}
	})
	return nil
}

// Check refuses with UNAUTHENTICATED an actor whose key is revoked as the
// transaction has it: another process may have done it a moment ago.
func (k *Keys) Check(tx *database.Tx, actor Actor) error {
	var good bool
	err := tx.Row("SELECT EXISTS (SELECT 1 FROM api_keys WHERE hash = ? AND agent_id = ? AND revoked_at IS NULL)",
		[]any{actor.Key[:], actor.AgentID}, &good)
	if err == nil && !good {
		return errUnknownKey()
	}
	return err
}

func errUnknownKey() error { return models.Errorf(models.Unauthenticated, "the API key is not known") }

// Forget drops the revoked keys of an agent, when another process revoked them, or
// of all agents when none is named: it is not known which ones were revoked.
func (k *Keys) Forget(ctx context.Context, agentID string) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
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
		k.revoke(Hash(key.Hash))
	}
	return nil
}

// Find returns the agent behind a key. An unknown or revoked key is
// UNAUTHENTICATED. Once a revocation has been answered it finds the key no more;
// in other processes as soon as their event log has got there.
func (k *Keys) Find(ctx context.Context, key string) (Actor, error) {
	hash := HashKey(key)
	if actor, ok := k.cache.Get(hash); ok {
		return actor, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	before := k.revoked()
	var row models.APIKey
	err := k.db.Read(ctx).Where("hash = ? AND revoked_at IS NULL", hash[:]).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		if k.Refused != nil {
			k.Refused(ctx)
		}
		return Actor{}, errUnknownKey()
	}
	if err != nil {
		return Actor{}, err
	}
	actor := Actor{AgentID: row.AgentID, Key: hash}
	k.remember(actor, before)
	return actor, nil
}

// revoked returns how many keys were revoked so far.
func (k *Keys) revoked() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.revocations
}

// remember caches a key that was read after so many revocations. When there was
// another one since, it may have been this key's, and has already emptied the
// cache of it: then the key is left out.
func (k *Keys) remember(actor Actor, before int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.revocations == before {
		k.cache.Add(actor.Key, actor)
	}
}

// revoke ends a key here.
func (k *Keys) revoke(hash Hash) {
	k.forget(hash)
	if k.Revoked != nil {
		k.Revoked(hash)
	}
}

// forget takes a revoked key out of the cache for good.
func (k *Keys) forget(hash Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revocations++
	k.cache.Remove(hash)
}
