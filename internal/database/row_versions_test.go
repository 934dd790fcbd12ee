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

// insertAgentWithWallet inserts an agent and its wallet.
func insertAgentWithWallet(tx *database.Tx, id string) error {
	if err := insertAgent(tx, id); err != nil {
		return err
	}
	return tx.Create(&models.Wallet{AgentID: id}).Error
}

// openWithTwoAgents returns a database with two agents and their wallets, in different
// buckets.
func openWithTwoAgents(t *testing.T) *database.DB {
	t.Helper()
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return errors.Join(insertAgentWithWallet(tx, "a"), insertAgentWithWallet(tx, "b"))
	}))
	if !db.InDifferentBuckets("agents", "a", "agents", "b") || !db.InDifferentBuckets("agents", "a", "wallets", "a") || !db.InDifferentBuckets("agents", "a", "agents", "c") {
		return openWithTwoAgents(t) // about once in 20 000 runs
	}
	return db
}

// renameAgent returns a function that changes a row of agents.
func renameAgent(id string, name any) func(*database.Tx) error {
	return func(tx *database.Tx) error {
		return tx.ExecOne("UPDATE agents SET name = ? WHERE id = ?", fmt.Sprint(name), id)
	}
}

// TestReadSet checks that a read of a row stays unchanged until a write changes that row,
// and that other reads depend on the whole database.
func TestReadSet(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change    func(*database.Tx) error
		unchanged bool
	}{
		"the row":        {renameAgent("a", "new"), false},
		"another row":    {renameAgent("b", "new"), true},
		"a new row":      {func(tx *database.Tx) error { return insertAgent(tx, "c") }, true},
		"another table":  {func(tx *database.Tx) error { return tx.Exec("UPDATE event_horizon SET seq = 1").Error }, true},
		"all rows":       {func(tx *database.Tx) error { return tx.Exec("UPDATE agents SET price_per_task = 3").Error }, false},
		"through gorm":   {func(tx *database.Tx) error { return tx.Model(&models.Agent{ID: "a"}).Update("name", "new").Error }, false},
		"a failed write": {func(tx *database.Tx) error { return errors.Join(renameAgent("b", "new")(tx), errors.New("test error")) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openWithTwoAgents(t)
			var agent models.Agent
			rowCtx, rowReads := db.TrackReads(t.Context())
			testutil.Must(t, db.ReadRows(rowCtx, "agents", "a").Take(&agent, "id = ?", "a").Error)
			allCtx, allReads := db.TrackReads(t.Context())
			testutil.Must(t, db.Read(allCtx).Take(&agent).Error)
			if rowReads.ReadsWholeStore() || !rowReads.Unchanged(0) || !allReads.ReadsWholeStore() || allReads.Unchanged(0) {
				t.Error("wrong state before the write")
			}
			_ = db.Write(t.Context(), row.change)
			if got := rowReads.Unchanged(0); got != row.unchanged {
				t.Errorf("unchanged is %v, want %v", got, row.unchanged)
			}
		})
	}
}

// TestReadSet_expiry checks that reads are unchanged from the time of the read until they
// expire.
func TestReadSet_expiry(t *testing.T) {
	t.Parallel()
	db := openWithTwoAgents(t)
	ctx, reads := db.TrackReads(t.Context())
	database.SetReadExpiry(ctx, 10, 0)
	database.SetReadExpiry(ctx, 12, 30)
	database.SetReadExpiry(ctx, 11, 20)
	for now, want := range map[models.Time]bool{11: false, 12: true, 19: true, 20: false, 30: false} {
		if got := reads.Unchanged(now); got != want {
			t.Errorf("at %d unchanged is %v", now, got)
		}
	}
}

// TestReadSet_reconnect checks that a new write connection also reports changes.
func TestReadSet_reconnect(t *testing.T) {
	t.Parallel()
	db := openWithTwoAgents(t)
	testutil.Must(t, db.Reconnect())
	ctx, reads := db.TrackReads(t.Context())
	testutil.Must(t, db.ReadRows(ctx, "agents", "a").Take(&models.Agent{}, "id = ?", "a").Error)
	testutil.Must(t, db.Write(t.Context(), renameAgent("a", "new")))
	if reads.Unchanged(0) {
		t.Error("the change was not detected")
	}
}

// nameCache caches the name of one agent.
type nameCache struct {
	mu    sync.Mutex
	name  string
	reads *database.ReadSet
}

// read returns the name, from the cache while it is unchanged.
func (c *nameCache) read(t *testing.T, db *database.DB, id string) string {
	t.Helper()
	c.mu.Lock()
	name, reads := c.name, c.reads
	c.mu.Unlock()
	if reads != nil && reads.Unchanged(0) {
		return name
	}
	ctx, reads := db.TrackReads(context.WithoutCancel(t.Context()))
	if err := db.ReadRows(ctx, "agents", id).Table("agents").Where("id = ?", id).Pluck("name", &name).Error; err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.name, c.reads = name, reads
	return name
}

// TestReadSet_concurrent checks that a writer reads its own change through a cache that
// other goroutines fill at the same time.
func TestReadSet_concurrent(t *testing.T) {
	t.Parallel()
	db := openWithTwoAgents(t)
	var group sync.WaitGroup
	for _, id := range []string{"a", "b"} {
		var cache nameCache
		done := make(chan struct{})
		for range 3 {
			group.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						cache.read(t, db, id)
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
				if got := cache.read(t, db, id); got != strconv.Itoa(n) {
					t.Errorf("after the write of %d, the cache returned %s", n, got)
				}
			}
		})
	}
	group.Wait()
}
