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

// TestOpen_pragmas: what is acknowledged is on the disk, and the laws that tables
// state are kept.
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

// TestSnapshot_concurrent: four read at once, none of them can write, and each sees one state,
// whatever is written meanwhile.
func TestSnapshot_concurrent(t *testing.T) {
	t.Parallel()
	const readers = 4
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "before") }))
	var reading, group sync.WaitGroup
	written := make(chan struct{})
	reading.Add(readers)
	for range readers {
		group.Go(func() {
			err := db.Snapshot(t.Context(), func(state *database.Snapshot) error {
				seen := func() (ids []string) {
					if err := state.Model(&models.Agent{}).Pluck("id", &ids).Error; err != nil {
						t.Error(err)
					}
					return ids
				}
				before := seen()
				reading.Done()
				<-written
				wantError(t, state.Exec("DELETE FROM agents").Error, "readonly database")
				if after := seen(); strings.Join(before, " ") != "before" || len(after) != len(before) {
					t.Errorf("a snapshot has %q, then %q", before, after)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	reading.Wait()
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "meanwhile") }))
	close(written)
	group.Wait()
	if got := agentIDs(t, db); len(got) != 2 {
		t.Errorf("afterwards there are %q", got)
	}
}
