package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"gorm.io/gorm"

	"agentmarket.space/server/database"
	"agentmarket.space/server/models"
)

const (
	keyBytes  = 32
	cacheSize = 100_000 // keys; about 100 bytes each
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
	// Revoked is told of every key that stops working, after the commit; its
	// open sockets are closed there. It may be nil.
	Revoked func(Hash)
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
			hash := Hash(key.Hash)
			k.cache.Remove(hash)
			if k.Revoked != nil {
				k.Revoked(hash)
			}
		}
	})
	return nil
}

// Find returns the agent behind a key. An unknown or revoked key is
// UNAUTHENTICATED.
func (k *Keys) Find(ctx context.Context, key string) (Actor, error) {
	hash := HashKey(key)
	if actor, ok := k.cache.Get(hash); ok {
		return actor, nil
	}
	var row models.APIKey
	err := k.db.Read(ctx).Where("hash = ? AND revoked_at IS NULL", hash[:]).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return Actor{}, models.Errorf(models.Unauthenticated, "the API key is not known")
	}
	if err != nil {
		return Actor{}, err
	}
	actor := Actor{AgentID: row.AgentID, Key: hash}
	k.cache.Add(hash, actor)
	return actor, k.recheck(ctx, hash)
}

// recheck closes the gap between reading a key and caching it: a revocation in
// between has already emptied the cache.
func (k *Keys) recheck(ctx context.Context, hash Hash) error {
	var n int64
	err := k.db.Read(ctx).Model(&models.APIKey{}).Where("hash = ? AND revoked_at IS NULL", hash[:]).Count(&n).Error
	if err == nil && n == 1 {
		return nil
	}
	k.cache.Remove(hash)
	if err != nil {
		return err
	}
	return models.Errorf(models.Unauthenticated, "the API key is not known")
}
