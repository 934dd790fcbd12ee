package database_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// insertAgentWithWallet adds an agent with a wallet.
func insertAgentWithWallet(tx *database.Tx, id string) error {
	if err := insertAgent(tx, id); err != nil {
		return err
	}
	return tx.Create(&models.Wallet{AgentID: id}).Error
}

// openWithTwoAgents returns a store with two agents and their wallets.
func openWithTwoAgents(t *testing.T) *database.DB {
	t.Helper()
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return errors.Join(insertAgentWithWallet(tx, "a"), insertAgentWithWallet(tx, "b"))
	}))
	if !db.InDifferentBuckets("agents", "a", "agents", "b") || !db.InDifferentBuckets("agents", "a", "wallets", "a") || !db.InDifferentBuckets("agents", "a", "agents", "c") {
		return openWithTwoAgents(t) // once in 20 000 times
	}
	return db
}

// renameAgent changes a row of agents.
func renameAgent(id string, name any) func(*database.Tx) error {
	return func(tx *database.Tx) error {
		return tx.ExecOne("UPDATE agents SET name = ? WHERE id = ?", fmt.Sprint(name), id)
	}
}

// TestReadSet: what was read by its id stands until a commit changes that row,
// whatever changes it; what was found in any other way goes by more than rows.
func TestReadSet(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(*database.Tx) error
		stands bool // afterwards
	}{
		"this row":                  {renameAgent("a", "new"), false},
		"another row":               {renameAgent("b", "new"), true},
		"a new row":                 {func(tx *database.Tx) error { return insertAgent(tx, "c") }, true},
		"another table":             {func(tx *database.Tx) error { return tx.Exec("UPDATE event_horizon SET seq = 1").Error }, true},
		"all rows":                  {func(tx *database.Tx) error { return tx.Exec("UPDATE agents SET price_per_task = 3").Error }, false},
		"through gorm":              {func(tx *database.Tx) error { return tx.Model(&models.Agent{ID: "a"}).Update("name", "new").Error }, false},
		"one that fails on the way": {func(tx *database.Tx) error { return errors.Join(renameAgent("b", "new")(tx), errors.New("refused")) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openWithTwoAgents(t)
			var agent models.Agent
			one, ofOne := db.TrackReads(t.Context())
			testutil.Must(t, db.ReadRows(one, "agents", "a").Take(&agent, "id = ?", "a").Error)
			whole, ofAll := db.TrackReads(t.Context())
			testutil.Must(t, db.Read(whole).Take(&agent).Error)
			if ofOne.ReadsWholeStore() || !ofOne.Unchanged(0) || !ofAll.ReadsWholeStore() || ofAll.Unchanged(0) {
				t.Error("it does not stand before anything is changed")
			}
			_ = db.Write(t.Context(), row.change)
			if got := ofOne.Unchanged(0); got != row.stands {
				t.Errorf("afterwards it stands: %v", got)
			}
		})
	}
}

// TestReadSet_expiry: what was read stands from when it was read until time moves it on.
func TestReadSet_expiry(t *testing.T) {
	t.Parallel()
	db := openWithTwoAgents(t)
	ctx, seen := db.TrackReads(t.Context())
	database.SetReadExpiry(ctx, 10, 0)
	database.SetReadExpiry(ctx, 12, 30)
	database.SetReadExpiry(ctx, 11, 20)
	for now, want := range map[models.Time]bool{11: false, 12: true, 19: true, 20: false, 30: false} {
		if got := seen.Unchanged(now); got != want {
			t.Errorf("at %d it stands: %v", now, got)
		}
	}
}

// TestReadSet_reconnect: a connection that takes the place of one that broke tells of
// changes as well.
func TestReadSet_reconnect(t *testing.T) {
	t.Parallel()
	db := openWithTwoAgents(t)
	testutil.Must(t, db.Reconnect())
	ctx, seen := db.TrackReads(t.Context())
	testutil.Must(t, db.ReadRows(ctx, "agents", "a").Take(&models.Agent{}, "id = ?", "a").Error)
	testutil.Must(t, db.Write(t.Context(), renameAgent("a", "new")))
	if seen.Unchanged(0) {
		t.Error("the change went unnoticed")
	}
}

// nameCache keeps what was read of one row.
type nameCache struct {
	mu    sync.Mutex
	name  string
	reads *database.ReadSet
}

// read returns the name in the row, the kept one while it stands.
func (s *nameCache) read(t *testing.T, db *database.DB, id string) string {
	t.Helper()
	s.mu.Lock()
	name, seen := s.name, s.reads
	s.mu.Unlock()
	if seen != nil && seen.Unchanged(0) {
		return name
	}
	ctx, seen := db.TrackReads(context.WithoutCancel(t.Context()))
	if err := db.ReadRows(ctx, "agents", id).Table("agents").Where("id = ?", id).Pluck("name", &name).Error; err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.reads = name, seen
	return name
}

// TestReadSet_concurrent: whoever has changed a row finds the change, though others
// keep what they read of it all the while.
func TestReadSet_concurrent(t *testing.T) {
	t.Parallel()
	db := openWithTwoAgents(t)
	var group sync.WaitGroup
	for _, id := range []string{"a", "b"} {
		var kept nameCache
		done := make(chan struct{})
		for range 3 {
			group.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						kept.read(t, db, id)
					}
				}
			})
		}
		group.Go(func() {
			defer close(done)
			for n := range 200 {
				if err := db.Write(t.Context(), renameAgent(id, n)); err != nil {
					t.Error(err)
				}
				if got := kept.read(t, db, id); got != strconv.Itoa(n) {
					t.Errorf("after %d was acknowledged, %s is read", n, got)
				}
			}
		})
	}
	group.Wait()
}
