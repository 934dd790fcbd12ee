package auth_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
)

func TestRevoke(t *testing.T) {
	t.Parallel()
	t.Run("revokes all keys of the agent, cached or not", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		used, unused := b.createKey(), b.createKey()
		b.wantFound(used)
		var revoked []auth.KeyHash
		b.onRevoked = func(hash auth.KeyHash) { revoked = append(revoked, hash) }
		b.revokeKeys()
		b.wantUnknown(used)
		b.wantUnknown(unused)
		if len(revoked) != 2 || !slices.Contains(revoked, auth.HashKey(used)) || !slices.Contains(revoked, auth.HashKey(unused)) {
			t.Errorf("OnRevoked ran for %d keys, want both", len(revoked))
		}
		b.revokeKeys()
		if len(revoked) != 2 {
			t.Error("OnRevoked ran twice for the same key")
		}
	})
	t.Run("a rotation revokes the old key and creates the new key", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		old := b.createKey()
		b.wantFound(old)
		var newKey string
		b.write(func(tx *database.Tx) (err error) {
			if err = b.Revoke(tx, agentID); err != nil {
				return err
			}
			newKey, err = b.Create(tx, agentID)
			return err
		})
		b.wantUnknown(old)
		b.wantFound(newKey)
		b.PurgeCache()
		b.wantUnknown(old)
		b.wantFound(newKey)
	})
	t.Run("keeps the keys of other agents", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		const other = "0190a1b2-0000-7000-8000-000000000002"
		b.createAgent(other)
		var key string
		b.write(func(tx *database.Tx) (err error) {
			key, err = b.Create(tx, other)
			return err
		})
		b.createKey()
		b.revokeKeys()
		if actor, err := b.Authenticate(t.Context(), key); err != nil || actor.AgentID != other {
			t.Errorf("found %v (%v)", actor, err)
		}
	})
	t.Run("a lookup that ends after the revocation does not cache the key", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		key := b.createKey()
		revocations := b.RevocationCount()
		actor, err := b.Authenticate(t.Context(), key)
		testutil.Must(t, err)
		b.revokeKeys()
		b.CacheActor(actor, revocations)
		b.wantUnknown(key)
	})
}

// TestRevoke_concurrent authenticates with a key while it is revoked, from the cache
// and from the database. No call that starts after the revocation returned finds
// the key.
func TestRevoke_concurrent(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const rounds, finders = 25, 6
	for range rounds {
		key := b.createKey()
		var started, revoked atomic.Int64
		var late atomic.Int64
		var group sync.WaitGroup
		for i := range finders {
			group.Go(func() {
				for after := 0; after < 3; { // some more calls after the revocation
					if i == 0 {
						b.PurgeCache() // makes the others read the database
					}
					isRevoked := revoked.Load() == 1
					_, err := b.Authenticate(t.Context(), key)
					started.Add(1)
					if isRevoked {
						after++
						if err == nil {
							late.Add(1)
						}
					}
				}
			})
		}
		for started.Load() < finders {
			b.wantFound(key)
		}
		b.revokeKeys()
		revoked.Store(1)
		group.Wait()
		if n := late.Load(); n > 0 {
			t.Fatalf("%d calls found a key that was revoked before they started", n)
		}
		b.wantUnknown(key)
	}
}
