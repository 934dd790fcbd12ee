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
	t.Run("ends every key of the agent at once, remembered or not", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		used, unused := b.createKey(), b.createKey()
		b.wantFound(used)
		var told []auth.KeyHash
		b.OnRevoked = func(hash auth.KeyHash) { told = append(told, hash) }
		b.revokeKeys()
		b.wantUnknown(used)
		b.wantUnknown(unused)
		if len(told) != 2 || !slices.Contains(told, auth.HashKey(used)) || !slices.Contains(told, auth.HashKey(unused)) {
			t.Errorf("told of %d keys, want both", len(told))
		}
		b.revokeKeys()
		if len(told) != 2 {
			t.Error("told twice of the same key")
		}
	})
	t.Run("a rotation ends the old key as the new one begins", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		old := b.createKey()
		b.wantFound(old)
		var fresh string
		b.write(func(tx *database.Tx) (err error) {
			if err = b.Revoke(tx, agentID); err != nil {
				return err
			}
			fresh, err = b.Create(tx, agentID)
			return err
		})
		b.wantUnknown(old)
		b.wantFound(fresh)
		b.PurgeCache()
		b.wantUnknown(old)
		b.wantFound(fresh)
	})
	t.Run("leaves other agents alone", func(t *testing.T) {
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
	t.Run("a look-up that ends late does not bring the key back", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		key := b.createKey()
		before := b.RevocationCount()
		actor, err := b.Authenticate(t.Context(), key)
		testutil.Must(t, err)
		b.revokeKeys()
		b.CacheLate(actor, before)
		b.wantUnknown(key)
	})
}

// TestRevoke_concurrent looks keys up without a pause, from memory and from the store,
// while they are revoked: no look-up that begins after the revocation was
// answered finds one.
func TestRevoke_concurrent(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const rounds, finders = 25, 6
	for range rounds {
		key := b.createKey()
		var began, revoked atomic.Int64
		var late atomic.Int64
		var group sync.WaitGroup
		for i := range finders {
			group.Go(func() {
				for after := 0; after < 3; { // some more look-ups once it is revoked
					if i == 0 {
						b.PurgeCache() // sends the others to the store
					}
					dead := revoked.Load() == 1
					_, err := b.Authenticate(t.Context(), key)
					began.Add(1)
					if dead {
						after++
						if err == nil {
							late.Add(1)
						}
					}
				}
			})
		}
		for began.Load() < finders {
			b.wantFound(key)
		}
		b.revokeKeys()
		revoked.Store(1)
		group.Wait()
		if n := late.Load(); n > 0 {
			t.Fatalf("%d look-ups found a key that was revoked before they began", n)
		}
		b.wantUnknown(key)
	}
}
