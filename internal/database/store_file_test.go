package database_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// openFile opens the database at path.
func openFile(t *testing.T, path string) (*database.DB, error) {
	t.Helper()
	return database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
}

// addAgent writes a row.
func addAgent(t *testing.T, db *database.DB, id string) error {
	t.Helper()
	return db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, id) })
}

// copyFiles copies a database and its log while they are in use, as a crash leaves them.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		testutil.Must(t, os.WriteFile(to+suffix, []byte(testutil.ReadFile(t, from+suffix)), 0o600))
	}
}

// TestOpen_otherPaths checks that a file in use is refused by every path, and that the
// paths lead to one database.
func TestOpen_otherPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	testutil.Must(t, os.Symlink("market.db", filepath.Join(dir, "link.db"))) // before the file exists
	testutil.Must(t, os.Symlink(filepath.Join(dir, "link.db"), filepath.Join(dir, "chain.db")))
	testutil.Must(t, os.Symlink("loop.db", filepath.Join(dir, "loop.db")))
	testutil.Must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	testutil.Must(t, os.Symlink("..", filepath.Join(dir, "sub", "up")))
	paths := []string{filepath.Join(dir, "market.db"), filepath.Join(dir, "link.db"), filepath.Join(dir, "chain.db"), filepath.Join(dir, "sub", "up", "market.db")}
	for _, path := range paths {
		db, err := openFile(t, path)
		testutil.Must(t, err)
		for _, other := range paths {
			if _, err := openFile(t, other); err == nil || !strings.Contains(err.Error(), "another process is using it") {
				t.Errorf("%s while %s is open: %v", other, path, err)
			}
		}
		testutil.Must(t, db.Close())
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.lock")); len(files) != 1 {
		t.Errorf("lock files: %v", files)
	}
	_, err := openFile(t, filepath.Join(dir, "loop.db"))
	wantError(t, err, "too many symbolic links")
	testutil.Must(t, os.Link(paths[0], filepath.Join(dir, "sub", "hard.db")))
	for _, path := range []string{paths[0], filepath.Join(dir, "sub", "hard.db")} {
		_, err = openFile(t, path)
		wantError(t, err, "the file has 2 names (hard links)")
	}
}

// TestOpen_foreignLog checks that a database is refused next to the log of another
// database, and accepted with its own log or without one.
func TestOpen_foreignLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, crashed := filepath.Join(dir, "market.db"), filepath.Join(dir, "crashed.db")
	db, err := openFile(t, path)
	testutil.Must(t, err)
	testutil.Must(t, addAgent(t, db, "first"))
	testutil.Must(t, db.Close())
	stopped := testutil.ReadFile(t, path)
	db, err = openFile(t, path)
	testutil.Must(t, err)
	testutil.Must(t, addAgent(t, db, "second"))
	backup := filepath.Join(dir, "backup.db")
	testutil.Must(t, database.Backup(t.Context(), path, backup, func(*database.Snapshot) error { return nil }))
	copyFiles(t, path, crashed)
	testutil.Must(t, db.Close())
	right, log := testutil.ReadFile(t, crashed), testutil.ReadFile(t, crashed+"-wal")
	for _, row := range []struct{ name, content, log, wantErr string }{
		{"an older copy", stopped, log, "crashed.db-wal does not belong to this file"},
		{"a backup", testutil.ReadFile(t, backup), log, "crashed.db-wal does not belong to this file"},
		{"another database", testutil.ReadFile(t, closedDatabase(t)), log, "crashed.db-wal does not belong to this file"},
		{"an empty file", "", log, "the file is missing or empty, but crashed.db-wal holds changes"},
		{"an older copy without the log", stopped, "", ""},
		{"the right file", right, log, ""},
	} {
		testutil.Must(t, os.WriteFile(crashed, []byte(row.content), 0o600))
		testutil.Must(t, os.WriteFile(crashed+"-wal", []byte(row.log), 0o600))
		testutil.Must(t, os.RemoveAll(crashed+"-shm"))
		db, err := openFile(t, crashed)
		if row.wantErr != "" {
			wantError(t, err, row.wantErr)
			if testutil.ReadFile(t, crashed) != row.content || testutil.ReadFile(t, crashed+"-wal") != row.log {
				t.Errorf("%s: the files were changed", row.name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		var agents int64
		testutil.Must(t, db.Read(t.Context()).Model(&models.Agent{}).Count(&agents).Error)
		testutil.Equal(t, row.name+": agents", agents, map[bool]int64{true: 2, false: 1}[row.log != ""])
		testutil.Must(t, db.Close())
	}
	testutil.Must(t, os.Remove(crashed))
	testutil.Must(t, os.WriteFile(crashed+"-wal", []byte(log), 0o600))
	_, err = openFile(t, crashed)
	wantError(t, err, "the file is missing or empty")
	if _, err := os.Stat(crashed); err == nil {
		t.Error("a file was created")
	}
}

// TestOpen_whileRead checks that a store can be restarted any number of times while another
// program reads it, which keeps the log from being moved into the file.
func TestOpen_whileRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "market.db")
	restart := func(id string) {
		t.Helper()
		db, err := openFile(t, path)
		testutil.Must(t, err)
		testutil.Must(t, addAgent(t, db, id))
		testutil.Must(t, db.Close())
	}
	restart("first")
	testutil.Must(t, database.Inspect(t.Context(), path, func(*database.Snapshot) error {
		restart("second")
		restart("third")
		restart("fourth")
		return nil
	}))
	restart("fifth")
}

// TestOpen_killedDuringStart checks that every state in which a start can be killed is
// accepted by the next one: the mark of the log is one step ahead of the file at most.
func TestOpen_killedDuringStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, crashed := filepath.Join(dir, "market.db"), filepath.Join(dir, "crashed.db")
	for range 3 {
		db, err := openFile(t, path)
		testutil.Must(t, err)
		testutil.Must(t, db.RaiseGeneration(func() { copyFiles(t, path, crashed) }))
		testutil.Must(t, db.Close())
		killed, err := openFile(t, crashed)
		testutil.Must(t, err)
		testutil.Must(t, killed.Close())
		testutil.Must(t, os.Remove(crashed))
	}
}

// TestWrite_fileLost checks that a write to a file that was removed or replaced fails with
// ErrFileLost, also when the file is back, and that Close touches no file.
func TestWrite_fileLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(path string) error{
		"removed":     func(path string) error { return os.Rename(path, path+".away") },
		"log removed": func(path string) error { return os.Rename(path+"-wal", path+"-wal.away") },
		"replaced":    func(path string) error { return os.WriteFile(path, make([]byte, 8192), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "market.db")
			db, err := openFile(t, path)
			testutil.Must(t, err)
			testutil.Must(t, addAgent(t, db, "before"))
			testutil.Must(t, lose(path))
			if err := addAgent(t, db, "after"); !errors.Is(err, database.ErrFileLost) || models.CodeOf(err) != models.Unavailable {
				t.Errorf("a write: %v", err)
			}
			testutil.Receive(t, "the loss", db.FileLost())
			for _, suffix := range []string{"", "-wal"} {
				if _, err := os.Stat(path + suffix + ".away"); err == nil {
					testutil.Must(t, os.Rename(path+suffix+".away", path+suffix))
				}
			}
			if err := addAgent(t, db, "later"); !errors.Is(err, database.ErrFileLost) {
				t.Errorf("a later write: %v", err)
			}
			if err := db.Ping(t.Context()); !errors.Is(err, database.ErrFileLost) {
				t.Errorf("ping: %v", err)
			}
			file, log := testutil.ReadFile(t, path), testutil.ReadFile(t, path+"-wal")
			if err := db.Close(); !errors.Is(err, database.ErrFileLost) {
				t.Errorf("close: %v", err)
			}
			if testutil.ReadFile(t, path) != file || testutil.ReadFile(t, path+"-wal") != log {
				t.Error("Close changed a file")
			}
		})
	}
}
