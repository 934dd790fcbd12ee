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
	"agentmarket.space/server/models"
)

// addAgent adds an agent with a wallet.
func addAgent(tx *database.Tx, id string) error {
	if err := add(tx, id); err != nil {
		return err
	}
	return tx.Create(&models.Wallet{AgentID: id}).Error
}

// agentsOf returns a store with two agents and their wallets.
func agentsOf(t *testing.T) *database.DB {
	t.Helper()
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	must(t, db.Write(t.Context(), func(tx *database.Tx) error { return errors.Join(addAgent(tx, "a"), addAgent(tx, "b")) }))
	if !db.Apart("agents", "a", "agents", "b") || !db.Apart("agents", "a", "wallets", "a") || !db.Apart("agents", "a", "agents", "c") {
		return agentsOf(t) // once in 20 000 times
	}
	return db
}

// rename changes a row of agents.
func rename(id string, name any) func(*database.Tx) error {
	return func(tx *database.Tx) error {
		return tx.Run("UPDATE agents SET name = ? WHERE id = ?", fmt.Sprint(name), id)
	}
}

// TestSeen: what was read by its id stands until a commit changes that row,
// whatever changes it; what was found in any other way goes by more than rows.
func TestSeen(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(*database.Tx) error
		stands bool // afterwards
	}{
		"this row":                  {rename("a", "new"), false},
		"another row":               {rename("b", "new"), true},
		"a new row":                 {func(tx *database.Tx) error { return add(tx, "c") }, true},
		"another table":             {func(tx *database.Tx) error { return tx.Exec("UPDATE event_horizon SET seq = 1").Error }, true},
		"all rows":                  {func(tx *database.Tx) error { return tx.Exec("UPDATE agents SET price_per_task = 3").Error }, false},
		"through gorm":              {func(tx *database.Tx) error { return tx.Model(&models.Agent{ID: "a"}).Update("name", "new").Error }, false},
		"one that fails on the way": {func(tx *database.Tx) error { return errors.Join(rename("b", "new")(tx), errors.New("refused")) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := agentsOf(t)
			var agent models.Agent
			one, ofOne := db.Watch(t.Context())
			must(t, db.ReadRows(one, "agents", "a").Take(&agent, "id = ?", "a").Error)
			whole, ofAll := db.Watch(t.Context())
			must(t, db.Read(whole).Take(&agent).Error)
			if ofOne.All() || !ofOne.Stands(0) || !ofAll.All() || ofAll.Stands(0) {
				t.Error("it does not stand before anything is changed")
			}
			_ = db.Write(t.Context(), row.change)
			if got := ofOne.Stands(0); got != row.stands {
				t.Errorf("afterwards it stands: %v", got)
			}
		})
	}
}

// TestSeen_time: what was read stands from when it was read until time moves it on.
func TestSeen_time(t *testing.T) {
	t.Parallel()
	db := agentsOf(t)
	ctx, seen := db.Watch(t.Context())
	database.Until(ctx, 10, 0)
	database.Until(ctx, 12, 30)
	database.Until(ctx, 11, 20)
	for now, want := range map[models.Time]bool{11: false, 12: true, 19: true, 20: false, 30: false} {
		if got := seen.Stands(now); got != want {
			t.Errorf("at %d it stands: %v", now, got)
		}
	}
}

// TestSeen_reconnect: a connection that takes the place of one that broke tells of
// changes as well.
func TestSeen_reconnect(t *testing.T) {
	t.Parallel()
	db := agentsOf(t)
	must(t, db.Reconnect())
	ctx, seen := db.Watch(t.Context())
	must(t, db.ReadRows(ctx, "agents", "a").Take(&models.Agent{}, "id = ?", "a").Error)
	must(t, db.Write(t.Context(), rename("a", "new")))
	if seen.Stands(0) {
		t.Error("the change went unnoticed")
	}
}

// shelf keeps what was read of one row.
type shelf struct {
	mu   sync.Mutex
	name string
	seen *database.Seen
}

// read returns the name in the row, the kept one while it stands.
func (s *shelf) read(t *testing.T, db *database.DB, id string) string {
	t.Helper()
	s.mu.Lock()
	name, seen := s.name, s.seen
	s.mu.Unlock()
	if seen != nil && seen.Stands(0) {
		return name
	}
	ctx, seen := db.Watch(context.WithoutCancel(t.Context()))
	if err := db.ReadRows(ctx, "agents", id).Table("agents").Where("id = ?", id).Pluck("name", &name).Error; err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.seen = name, seen
	return name
}

// TestSeen_concurrently: whoever has changed a row finds the change, though others
// keep what they read of it all the while.
func TestSeen_concurrently(t *testing.T) {
	t.Parallel()
	db := agentsOf(t)
	var group sync.WaitGroup
	for _, id := range []string{"a", "b"} {
		var kept shelf
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
				if err := db.Write(t.Context(), rename(id, n)); err != nil {
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
