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
	"agentmarket.space/server/models"
)

// open opens the store at path, which is closed with the test.
func open(t *testing.T, path string) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

// add writes an agent with an id, by which the tests tell what was kept.
func add(tx *database.Tx, id string) error {
	return tx.Create(&models.Agent{ID: id, Name: id, Capabilities: []string{}, PricePerTask: 1}).Error
}

// kept returns the ids of the agents there are.
func kept(t *testing.T, db *database.DB) []string {
	t.Helper()
	var ids []string
	must(t, db.Read(t.Context()).Model(&models.Agent{}).Order("id").Pluck("id", &ids).Error)
	return ids
}

// TestWrite has many changes share commits; one that fails or panics takes
// nothing of its neighbours along.
func TestWrite(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	broken := errors.New("broken")
	var committed sync.Map
	var group sync.WaitGroup
	for i := range 200 {
		id := string(rune('a'+i/26)) + string(rune('a'+i%26))
		group.Go(func() {
			err := db.Write(t.Context(), func(tx *database.Tx) error {
				tx.OnCommit(func() { committed.Store(id, true) })
				if err := add(tx, id); err != nil {
					return err
				}
				switch i % 5 {
				case 1:
					return broken
				case 2:
					panic("the change is broken")
				case 3: // a statement that fails is not the end of the change
					_ = add(tx, id)
				}
				return nil
			})
			_, hooked := committed.Load(id)
			switch i % 5 {
			case 1:
				if !errors.Is(err, broken) || hooked {
					t.Errorf("%s ended with %v, its hook ran: %t", id, err, hooked)
				}
			case 2:
				if err == nil || !strings.Contains(err.Error(), "the change is broken") || hooked {
					t.Errorf("%s ended with %v, its hook ran: %t", id, err, hooked)
				}
			default:
				if err != nil || !hooked {
					t.Errorf("%s ended with %v, its hook ran: %t", id, err, hooked)
				}
			}
		})
	}
	group.Wait()
	if n := len(kept(t, db)); n != 120 {
		t.Errorf("%d changes were kept, want 120", n)
	}
}

// TestWrite_order: changes are applied in the order they came, and hooks run in
// it, each after the commit of what it is about.
func TestWrite_order(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
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
				return add(tx, id)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	write("first", true)
	<-entered
	if got := kept(t, db); len(got) != 0 {
		t.Errorf("%q can be read before the commit", got)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	group.Go(func() {
		if err := db.Write(cancelled, func(tx *database.Tx) error { return add(tx, "cancelled") }); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled change ended with %v", err)
		}
	})
	write("second", false)
	close(release)
	group.Wait()
	if got := kept(t, db); !slices.Equal(got, []string{"first", "second"}) || !slices.Equal(order, []string{"first", "second"}) {
		t.Errorf("kept %q, hooks ran %q", got, order)
	}
}

// TestCrash: what was acknowledged is in the files as they are at that moment,
// and what was under way is not; a job that was running is given back.
func TestCrash(t *testing.T) {
	t.Parallel()
	dir, after := t.TempDir(), t.TempDir()
	db := open(t, filepath.Join(dir, "a.db"))
	must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		tx.Enqueue(job{}, nil)
		return add(tx, "acknowledged")
	}))
	must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("UPDATE river_job SET state = 'running'").Error
	}))
	must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		must(t, add(tx, "under way"))
		for _, name := range []string{"a.db", "a.db-wal"} {
			copyFile(t, filepath.Join(dir, name), filepath.Join(after, name))
		}
		return nil
	}))
	recovered := open(t, filepath.Join(after, "a.db"))
	if got := kept(t, recovered); !slices.Equal(got, []string{"acknowledged"}) {
		t.Errorf("after the crash there are %q", got)
	}
	_, err := recovered.NewWorker(t.Context(), &river.Config{})
	must(t, err)
	var states []string
	must(t, recovered.Read(t.Context()).Table("river_job").Pluck("state", &states).Error)
	if !slices.Equal(states, []string{"available"}) {
		t.Errorf("the job is %q", states)
	}
}

// job is what a test queues.
type job struct {
	Of string `json:"of"`
}

// Kind names the job.
func (job) Kind() string { return "test" }

// TestOpen_refuses what it could not serve without loss, and says why.
func TestOpen_refuses(t *testing.T) {
	t.Parallel()
	served := filepath.Join(t.TempDir(), "served.db")
	db := open(t, served)
	for says, path := range map[string]string{
		"another process serves it":  served,
		"not a database":             noDatabase(t),
		"the file is damaged":        damaged(t),
		"run a newer one":            newer(t),
		"no such file or directory":  filepath.Join(t.TempDir(), "none", "a.db"),
		"another program's database": foreign(t),
		"give a postgres:// address": "mysql://localhost/a",
	} {
		opened, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
		if err == nil {
			must(t, opened.Close())
		}
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want a line with %q", err, says)
		}
	}
	must(t, db.Ping(t.Context()))
}

// TestOpen_foreign leaves another program's database as it was, to the byte.
func TestOpen_foreign(t *testing.T) {
	t.Parallel()
	path := foreign(t)
	before, err := os.ReadFile(path)
	must(t, err)
	if _, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("it was opened")
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("it was written to (%v)", err)
	}
}

func noDatabase(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	must(t, os.WriteFile(path, []byte(strings.Repeat("text ", 1000)), 0o600))
	return path
}

func damaged(t *testing.T) string {
	t.Helper()
	path := closed(t)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = file.WriteAt([]byte(strings.Repeat("\xff", 30_000)), 8192)
	must(t, errors.Join(err, file.Close()))
	return path
}

// foreign makes another program's database.
func foreign(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := sql.Open(services.FileDriver(), path)
	must(t, err)
	_, err = db.ExecContext(t.Context(), "CREATE TABLE accounts (id INTEGER PRIMARY KEY)")
	must(t, errors.Join(err, db.Close()))
	return path
}

// newer makes a store as a program of a later version would leave it.
func newer(t *testing.T) string {
	t.Helper()
	from, to := filepath.Join(t.TempDir(), "a.db"), filepath.Join(t.TempDir(), "a.db")
	db := open(t, from)
	must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)").Error
	}))
	copyFile(t, from, to)
	copyFile(t, from+"-wal", to+"-wal")
	return to
}

// closed makes a store with rows in it and closes it.
func closed(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, db.Write(t.Context(), func(tx *database.Tx) error { return add(tx, "one") }))
	must(t, db.Close())
	return path
}

// TestInspect reads a store that is served, and one that is not there is made by
// nobody.
func TestInspect(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	if err := database.Inspect(t.Context(), path, func(*database.State) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want a missing file", err)
	}
	db := open(t, path)
	must(t, db.Write(t.Context(), func(tx *database.Tx) error { return add(tx, "one") }))
	must(t, database.Inspect(t.Context(), path, func(state *database.State) error {
		var n int64
		if err := state.Model(&models.Agent{}).Count(&n).Error; err != nil || n != 1 {
			t.Errorf("counts %d (%v)", n, err)
		}
		return nil
	}))
}

// TestInspect_newer: what a program of a later version left is neither read, backed
// up nor restored.
func TestInspect_newer(t *testing.T) {
	t.Parallel()
	path, dir := newer(t), t.TempDir()
	check := func(*database.State) error {
		t.Error("it was looked into")
		return nil
	}
	for name, err := range map[string]error{
		"inspect": database.Inspect(t.Context(), path, check),
		"backup":  database.Backup(t.Context(), path, filepath.Join(dir, "backup.db"), check),
		"restore": database.Restore(t.Context(), path, filepath.Join(dir, "restored.db"), check),
	} {
		if err == nil || !strings.Contains(err.Error(), "run a newer one") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestInspect_newerPostgres is the same there.
func TestInspect_newerPostgres(t *testing.T) {
	t.Parallel()
	address := services.Postgres(t)
	db := open(t, address)
	must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)").Error
	}))
	err := database.Inspect(t.Context(), address, func(*database.State) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "run a newer one") {
		t.Errorf("got %v", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	must(t, err)
	target, err := os.Create(to)
	must(t, err)
	_, err = io.Copy(target, source)
	must(t, errors.Join(err, source.Close(), target.Close()))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
