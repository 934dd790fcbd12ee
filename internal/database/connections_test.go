package database_test

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestOpen_pragmas checks the settings of the write connection: durable commits and
// enforced foreign keys.
func TestOpen_pragmas(t *testing.T) {
	t.Parallel()
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000", "temp_store": "2", "query_only": "0",
	} {
		var got string
		testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return tx.QueryRow("PRAGMA "+pragma, nil, &got) }))
		if got != want {
			t.Errorf("the writer has %s = %s, want %s", pragma, got, want)
		}
	}
	err := db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Create(&models.AgentCapability{Capability: "x", AgentID: "nobody"}).Error
	})
	wantError(t, err, "foreign key")
}

// TestSnapshot_concurrent checks that four snapshots can be read at the same time, are
// read-only, and do not see later writes.
func TestSnapshot_concurrent(t *testing.T) {
	t.Parallel()
	const readers = 4
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "before") }))
	var started, group sync.WaitGroup
	written := make(chan struct{})
	started.Add(readers)
	for range readers {
		group.Go(func() {
			err := db.Snapshot(t.Context(), func(snapshot *database.Snapshot) error {
				readIDs := func() (ids []string) {
					if err := snapshot.Model(&models.Agent{}).Pluck("id", &ids).Error; err != nil {
						t.Error(err)
					}
					return ids
				}
				before := readIDs()
				started.Done()
				<-written
				wantError(t, snapshot.Exec("DELETE FROM agents").Error, "readonly database")
				if after := readIDs(); strings.Join(before, " ") != "before" || len(after) != len(before) {
					t.Errorf("a snapshot returned %q, then %q", before, after)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "later") }))
	close(written)
	group.Wait()
	if got := agentIDs(t, db); len(got) != 2 {
		t.Errorf("agents are %q, want 2", got)
	}
}
