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

// bundle is the keys of a database with one agent.
type bundle struct {
	*auth.Keys
	t         *testing.T
	db        *database.DB
	path      string
	onRevoked func(auth.KeyHash)
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
	b := &bundle{t: t, db: db, path: path, onRevoked: func(auth.KeyHash) {}}
	now := func() time.Time { return time.Unix(1_800_000_000, 0) }
	b.Keys, err = auth.NewKeys(db, now, auth.KeyHooks{OnRevoked: func(hash auth.KeyHash) { b.onRevoked(hash) }})
	testutil.Must(t, err)
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

// createKey creates a key of the agent.
func (b *bundle) createKey() (key string) {
	b.t.Helper()
	b.write(func(tx *database.Tx) (err error) {
		key, err = b.Create(tx, agentID)
		return err
	})
	return key
}

// revokeKeys revokes the agent's keys.
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
		b.t.Errorf("the error contains the key: %v", err)
	}
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	key, other := b.createKey(), b.createKey()
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(key) || key == other {
		t.Errorf("the keys %q and %q are not two different texts of 32 bytes in hex", key, other)
	}
	for range 2 { // from the database, then from the cache
		b.wantFound(key)
		b.wantFound(other)
	}
	hash := auth.HashKey(key)
	for _, wrong := range []string{
		"", " ", key[1:], key + "0", " " + key, key + "\n", strings.ToUpper(key), strings.Repeat("0", 64),
		hex.EncodeToString(hash[:]), string(hash[:]), // a stored hash is not a key
		"' OR '1'='1", "\x00", "\xff\xfe", strings.Repeat("x", 1<<20),
	} {
		b.wantUnknown(wrong)
	}
}

// TestKeys_storeOnlyHashes searches for the key in every file of the database.
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
			t.Errorf("%s contains the key", filepath.Base(name))
		}
		hashes += bytes.Count(content, hash[:])
	}
	if hashes == 0 {
		t.Error("the search does not find the hash either")
	}
}

// TestKeys_rollback checks that a rolled back transaction neither creates nor revokes
// a key.
func TestKeys_rollback(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	key := b.createKey()
	b.onRevoked = func(auth.KeyHash) { t.Error("OnRevoked ran for a rolled back revocation") }
	errRollback := errors.New("roll back")
	var rolledBack string
	err := b.db.Write(t.Context(), func(tx *database.Tx) (err error) {
		if err = b.Revoke(tx, agentID); err != nil {
			return err
		}
		if rolledBack, err = b.Create(tx, agentID); err != nil {
			return err
		}
		return errRollback
	})
	if !errors.Is(err, errRollback) {
		t.Fatal(err)
	}
	b.wantUnknown(rolledBack)
	b.wantFound(key)
}

// TestAuthenticate_databaseError checks that a database error is INTERNAL, not
// UNAUTHENTICATED.
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

// TestAuthenticate_unknownKeysNotCached checks that unknown keys neither fill the
// cache nor evict valid keys.
func TestAuthenticate_unknownKeysNotCached(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	key := b.createKey()
	b.wantFound(key)
	for i := range 500 {
		b.wantUnknown(fmt.Sprintf("%064x", i))
	}
	if n := b.CacheLen(); n != 1 {
		t.Errorf("%d keys are cached, want 1", n)
	}
}
