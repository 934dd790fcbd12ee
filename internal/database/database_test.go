package database_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/riverqueue/river"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// openDB opens the database at path and closes it when the test ends.
func openDB(t *testing.T, path string) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	return db
}

// insertAgent inserts an agent. Tests use its ID to check which writes are committed.
func insertAgent(tx *database.Tx, id string) error {
	return tx.Create(&models.Agent{ID: id, Name: id, Capabilities: []string{}, PricePerTask: 1}).Error
}

// agentIDs returns the IDs of all agents.
func agentIDs(t *testing.T, db *database.DB) []string {
	t.Helper()
	var ids []string
	testutil.Must(t, db.Read(t.Context()).Model(&models.Agent{}).Order("id").Pluck("id", &ids).Error)
	return ids
}

// TestWrite_isolatesConcurrentFailures checks that a write that fails or panics does not
// affect others in the same commit.
func TestWrite_isolatesConcurrentFailures(t *testing.T) {
	t.Parallel()
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	errTest := errors.New("test error")
	var committed sync.Map
	var group sync.WaitGroup
	for i := range 200 {
		id := string(rune('a'+i/26)) + string(rune('a'+i%26))
		group.Go(func() {
			err := db.Write(t.Context(), func(tx *database.Tx) error {
				tx.OnCommit(func() { committed.Store(id, true) })
				if err := insertAgent(tx, id); err != nil {
					return err
				}
				switch i % 5 {
				case 1:
					return errTest
				case 2:
					panic("the write panics")
				case 3: // a failed statement does not fail the write
					_ = insertAgent(tx, id)
				}
				return nil
			})
			_, hooked := committed.Load(id)
			switch i % 5 {
			case 1:
				if !errors.Is(err, errTest) || hooked {
					t.Errorf("%s returned %v, its hook ran: %t", id, err, hooked)
				}
			case 2:
				if err == nil || !strings.Contains(err.Error(), "the write panics") || hooked {
					t.Errorf("%s returned %v, its hook ran: %t", id, err, hooked)
				}
			default:
				if err != nil || !hooked {
					t.Errorf("%s returned %v, its hook ran: %t", id, err, hooked)
				}
			}
		})
	}
	group.Wait()
	if n := len(agentIDs(t, db)); n != 120 {
		t.Errorf("committed %d writes, want 120", n)
	}
}

// TestWrite_order checks that writes and their hooks run in arrival order, and that hooks
// run after the commit.
func TestWrite_order(t *testing.T) {
	t.Parallel()
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	entered, release := make(chan struct{}), make(chan struct{})
	var order []string
	var group sync.WaitGroup
	write := func(id string, wait bool) {
		group.Go(func() {
			err := db.Write(t.Context(), func(tx *database.Tx) error {
				tx.OnCommit(func() { order = append(order, id) })
				if wait {
					close(entered)
					<-release
				}
				return insertAgent(tx, id)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	write("first", true)
	<-entered
	if got := agentIDs(t, db); len(got) != 0 {
		t.Errorf("%q is visible before the commit", got)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	group.Go(func() {
		if err := db.Write(cancelled, func(tx *database.Tx) error { return insertAgent(tx, "cancelled") }); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled write returned %v", err)
		}
	})
	write("second", false)
	close(release)
	group.Wait()
	if got := agentIDs(t, db); !slices.Equal(got, []string{"first", "second"}) || !slices.Equal(order, []string{"first", "second"}) {
		t.Errorf("committed %q, hooks ran %q", got, order)
	}
}

// TestOpen_afterCrash opens the files that a crash leaves. They hold acknowledged writes
// and not the current one. A running job becomes available again.
func TestOpen_afterCrash(t *testing.T) {
	t.Parallel()
	dir, crashed := t.TempDir(), t.TempDir()
	db := openDB(t, filepath.Join(dir, "a.db"))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		tx.Enqueue(job{}, nil)
		return insertAgent(tx, "acknowledged")
	}))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("UPDATE river_job SET state = 'running'").Error
	}))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		testutil.Must(t, insertAgent(tx, "uncommitted"))
		for _, name := range []string{"a.db", "a.db-wal"} {
			copyFile(t, filepath.Join(dir, name), filepath.Join(crashed, name))
		}
		return nil
	}))
	recovered := openDB(t, filepath.Join(crashed, "a.db"))
	if got := agentIDs(t, recovered); !slices.Equal(got, []string{"acknowledged"}) {
		t.Errorf("after the crash the agents are %q", got)
	}
	_, err := recovered.NewJobRunner(t.Context(), &river.Config{})
	testutil.Must(t, err)
	var states []string
	testutil.Must(t, recovered.Read(t.Context()).Table("river_job").Pluck("state", &states).Error)
	if !slices.Equal(states, []string{"available"}) {
		t.Errorf("the states of the jobs are %q", states)
	}
}

// job is a job of the tests.
type job struct {
	Name string `json:"of"`
}

// Kind names the job.
func (job) Kind() string { return "test" }

// TestOpen_errors checks that Open rejects files that it cannot use safely.
func TestOpen_errors(t *testing.T) {
	t.Parallel()
	inUse := filepath.Join(t.TempDir(), "served.db")
	db := openDB(t, inUse)
	for want, path := range map[string]string{
		"another process is using it": inUse,
		"not a database":              nonDatabaseFile(t),
		"the file is damaged":         damagedFile(t),
		"upgrade the program":         newerDatabase(t),
		"no such file or directory":   filepath.Join(t.TempDir(), "none", "a.db"),
		"not an AgentMarket database": foreignDatabase(t),
		"give a postgres:// address":  "mysql://localhost/a",
	} {
		opened, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
		if err == nil {
			testutil.Must(t, opened.Close())
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line with %q", err, want)
		}
	}
	testutil.Must(t, db.Ping(t.Context()))
}

// TestOpen_foreignFileUnchanged checks that Open does not change another program's file.
func TestOpen_foreignFileUnchanged(t *testing.T) {
	t.Parallel()
	path := foreignDatabase(t)
	before, err := os.ReadFile(path)
	testutil.Must(t, err)
	if _, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("Open succeeded")
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file has changed (%v)", err)
	}
}

func nonDatabaseFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	testutil.Must(t, os.WriteFile(path, []byte(strings.Repeat("text ", 1000)), 0o600))
	return path
}

func damagedFile(t *testing.T) string {
	t.Helper()
	path := closedDatabase(t)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	testutil.Must(t, err)
	_, err = file.WriteAt([]byte(strings.Repeat("\xff", 30_000)), 8192)
	testutil.Must(t, errors.Join(err, file.Close()))
	return path
}

// foreignDatabase creates the database of another program.
func foreignDatabase(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := sql.Open(services.SQLiteDriver(), path)
	testutil.Must(t, err)
	_, err = db.ExecContext(t.Context(), "CREATE TABLE accounts (id INTEGER PRIMARY KEY)")
	testutil.Must(t, errors.Join(err, db.Close()))
	return path
}

// newerDatabase creates a database with a newer schema version.
func newerDatabase(t *testing.T) string {
	t.Helper()
	from, to := filepath.Join(t.TempDir(), "a.db"), filepath.Join(t.TempDir(), "a.db")
	db := openDB(t, from)
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)").Error
	}))
	copyFile(t, from, to)
	copyFile(t, from+"-wal", to+"-wal")
	return to
}

// closedDatabase creates a database with an agent and closes it.
func closedDatabase(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "one") }))
	testutil.Must(t, db.Close())
	return path
}

// TestInspect checks that Inspect reads a database in use and does not create a missing
// file.
func TestInspect(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	if err := database.Inspect(t.Context(), path, func(*database.Snapshot) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want a missing file", err)
	}
	db := openDB(t, path)
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "one") }))
	testutil.Must(t, database.Inspect(t.Context(), path, func(snapshot *database.Snapshot) error {
		var n int64
		if err := snapshot.Model(&models.Agent{}).Count(&n).Error; err != nil || n != 1 {
			t.Errorf("found %d agents (%v), want 1", n, err)
		}
		return nil
	}))
}

// TestInspect_newerSchema checks that a newer database is not inspected, backed up or
// restored.
func TestInspect_newerSchema(t *testing.T) {
	t.Parallel()
	path, dir := newerDatabase(t), t.TempDir()
	check := func(*database.Snapshot) error {
		t.Error("check was called")
		return nil
	}
	for name, err := range map[string]error{
		"inspect": database.Inspect(t.Context(), path, check),
		"backup":  database.Backup(t.Context(), path, filepath.Join(dir, "backup.db"), check),
		"restore": database.Restore(t.Context(), path, filepath.Join(dir, "restored.db"), check),
	} {
		if err == nil || !strings.Contains(err.Error(), "upgrade the program") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("files left behind: %v (%v)", left, err)
	}
}

// TestInspect_newerSchemaPostgres is TestInspect_newerSchema on PostgreSQL.
func TestInspect_newerSchemaPostgres(t *testing.T) {
	t.Parallel()
	address := services.NewPostgresDatabase(t)
	db := openDB(t, address)
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)").Error
	}))
	err := database.Inspect(t.Context(), address, func(*database.Snapshot) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "upgrade the program") {
		t.Errorf("got %v", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	testutil.Must(t, err)
	target, err := os.Create(to)
	testutil.Must(t, err)
	_, err = io.Copy(target, source)
	testutil.Must(t, errors.Join(err, source.Close(), target.Close()))
}
