package auth_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// bundle is the keys of a store with one agent in it.
type bundle struct {
	*auth.Keys
	t    *testing.T
	db   *database.DB
	path string
}

const agentID = "0190a1b2-0000-7000-8000-000000000001"

func newBundle(t *testing.T) *bundle {
	t.Helper()
	return newBundleAt(t, services.NewDatabase(t))
}

func newBundleAt(t *testing.T, path string) *bundle {
	t.Helper()
	db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	keys, err := auth.NewKeys(db, func() time.Time { return time.Unix(1_800_000_000, 0) })
	testutil.Must(t, err)
	b := &bundle{Keys: keys, t: t, db: db, path: path}
	b.createAgent(agentID)
	return b
}

func (b *bundle) createAgent(id string) {
	b.t.Helper()
	b.write(func(tx *database.Tx) error {
		return tx.Create(&models.Agent{ID: id, Name: "Agent", Capabilities: []string{}, PricePerTask: 10}).Error
	})
}

func (b *bundle) write(fn func(*database.Tx) error) {
	b.t.Helper()
	testutil.Must(b.t, b.db.Write(b.t.Context(), fn))
}

// createKey returns a new key of the agent.
func (b *bundle) createKey() (key string) {
	b.t.Helper()
	b.write(func(tx *database.Tx) (err error) {
		key, err = b.Create(tx, agentID)
		return err
	})
	return key
}

// revokeKeys ends the agent's keys; when it returns they are ended.
func (b *bundle) revokeKeys() {
	b.t.Helper()
	b.write(func(tx *database.Tx) error { return b.Revoke(tx, agentID) })
}

func (b *bundle) wantFound(key string) {
	b.t.Helper()
	actor, err := b.Authenticate(b.t.Context(), key)
	if want := (auth.Actor{AgentID: agentID, KeyHash: auth.HashKey(key)}); err != nil || actor != want {
		b.t.Errorf("found %v (%v), want %v", actor, err, want)
	}
}

func (b *bundle) wantUnknown(key string) {
	b.t.Helper()
	actor, err := b.Authenticate(b.t.Context(), key)
	if err == nil || models.CodeOf(err) != models.Unauthenticated || actor != (auth.Actor{}) {
		b.t.Errorf("%.80q: found %v (%v), want UNAUTHENTICATED", key, actor, err)
	}
	if len(key) > 8 && err != nil && strings.Contains(err.Error(), key) {
		b.t.Errorf("the error repeats the key: %v", err)
	}
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	key, other := b.createKey(), b.createKey()
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(key) || key == other {
		t.Errorf("the keys %q and %q are not two times 32 random bytes in hex", key, other)
	}
	for range 2 { // from the store, then from memory
		b.wantFound(key)
		b.wantFound(other)
	}
	hash := auth.HashKey(key)
	for _, wrong := range []string{
		"", " ", key[1:], key + "0", " " + key, key + "\n", strings.ToUpper(key), strings.Repeat("0", 64),
		hex.EncodeToString(hash[:]), string(hash[:]), // who has read the store has no key
		"' OR '1'='1", "\x00", "\xff\xfe", strings.Repeat("x", 1<<20),
	} {
		b.wantUnknown(wrong)
	}
}

// TestKeys_storeOnlyHashes looks for the key in every file of the store.
func TestKeys_storeOnlyHashes(t *testing.T) {
	t.Parallel()
	b := newBundleAt(t, services.SQLitePath(t))
	key := b.createKey()
	b.wantFound(key)
	raw, err := hex.DecodeString(key)
	testutil.Must(t, err)
	hash := auth.HashKey(key)
	files, err := filepath.Glob(b.path + "*")
	testutil.Must(t, err)
	hashes := 0
	for _, name := range files {
		content, err := os.ReadFile(name)
		testutil.Must(t, err)
		if bytes.Contains(content, []byte(key)) || bytes.Contains(content, raw) {
			t.Errorf("%s holds the key", filepath.Base(name))
		}
		hashes += bytes.Count(content, hash[:])
	}
	if hashes == 0 {
		t.Error("the search does not even find the hash")
	}
}

// TestKeys_rollback: a key that was shown by a transaction which then failed is
// none, and an undone revocation ends nothing.
func TestKeys_rollback(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	key := b.createKey()
	b.OnRevoked = func(auth.KeyHash) { t.Error("told of a revocation that was undone") }
	undone := errors.New("undone")
	var never string
	err := b.db.Write(t.Context(), func(tx *database.Tx) (err error) {
		if err = b.Revoke(tx, agentID); err != nil {
			return err
		}
		if never, err = b.Create(tx, agentID); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) {
		t.Fatal(err)
	}
	b.wantUnknown(never)
	b.wantFound(key)
}

// TestAuthenticate_databaseError: a store that cannot be read is a fault of ours, not a bad key.
func TestAuthenticate_databaseError(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	key := b.createKey()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Authenticate(ctx, key); err == nil || models.CodeOf(err) != models.Internal {
		t.Errorf("got %v, want an internal error", err)
	}
}

// TestAuthenticate_unknownKeysNotCached: whoever tries keys does not fill the memory, and
// does not push out those that are in use.
func TestAuthenticate_unknownKeysNotCached(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	key := b.createKey()
	b.wantFound(key)
	for i := range 500 {
		b.wantUnknown(fmt.Sprintf("%064x", i))
	}
	if n := b.CacheLen(); n != 1 {
		t.Errorf("%d keys are remembered, want 1", n)
	}
}
