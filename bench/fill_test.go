package main

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
)

// TestFill: the product verifies a filled store, and finds a violation after a credit is
// added.
func TestFill(t *testing.T) {
	t.Parallel()
	binary, err := compile(t.Context(), "..", t.TempDir(), "agentmarket", ".")
	if err != nil {
		t.Fatal(err)
	}
	s := store{dir: filepath.Join(t.TempDir(), "store"), size: 100}
	if err := s.refill(t.Context(), binary); err != nil {
		t.Fatal(err)
	}
	if ids, err := s.sampleTaskIDs(t.Context(), 50); err != nil || len(ids) != 50 {
		t.Errorf("%d ids: %v", len(ids), err)
	}
	db, err := sql.Open("sqlite3", "file:"+s.file())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // the connection is not used again
	var triggers int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'wallets%'").Scan(&triggers); err != nil || triggers == 0 {
		t.Errorf("%d triggers were put back: %v", triggers, err)
	}
	for _, statement := range []string{"DROP TRIGGER wallets_match_transfers", "UPDATE wallets SET available = available + 1 WHERE rowid = 7"} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.verify(t.Context(), binary); err == nil || !strings.Contains(err.Error(), "does not hold") {
		t.Errorf("a credit too many: %v", err)
	}
}
