package database_test

import (
	"database/sql"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// openSQL opens a database without this package.
func openSQL(t *testing.T, address string) *sql.DB {
	t.Helper()
	if !services.OnPostgres() {
		db, err := sql.Open(services.SQLiteDriver(), address)
		testutil.Must(t, err)
		t.Cleanup(func() { testutil.Must(t, db.Close()) })
		return db
	}
	pool, err := pgxpool.New(t.Context(), address)
	testutil.Must(t, err)
	t.Cleanup(pool.Close)
	return stdlib.OpenDBFromPool(pool)
}

// later is a migration of a later version of this program. It changes the table tasks
// on both engines.
const (
	laterVersion = 9000
	later        = "9000_notes.sql"
	laterText    = `-- +goose Up
ALTER TABLE tasks ADD COLUMN note text NOT NULL DEFAULT '';
UPDATE tasks SET note = title;
CREATE INDEX tasks_by_note ON tasks (note, id);
`
)

// firstMigrationOnly creates a database with only the first migration.
func firstMigrationOnly(t *testing.T) (address string) {
	t.Helper()
	address = services.SQLitePath(t)
	folder, dialect := "migrations/sqlite", goose.DialectSQLite3
	if services.OnPostgres() {
		address = services.NewPostgresDatabase(t)
	}
	db := openSQL(t, address)
	if services.OnPostgres() {
		folder, dialect = "migrations/postgres", goose.DialectPostgres
		_, err := db.ExecContext(t.Context(), "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
		testutil.Must(t, err)
	}
	provider, err := goose.NewProvider(dialect, db, os.DirFS(folder))
	testutil.Must(t, err)
	_, err = provider.UpTo(t.Context(), 1)
	testutil.Must(t, err)
	return address
}

// TestMigrate checks that ReadSchemaStatus lists pending migrations without applying
// them, that Migrate applies them, and that nothing is pending afterwards.
func TestMigrate(t *testing.T) { // not parallel: see AddMigration
	address := firstMigrationOnly(t)
	database.AddMigration(t, later, laterText)
	logger := slog.New(slog.DiscardHandler)
	for range 2 { // the first call changes nothing
		status, err := database.ReadSchemaStatus(t.Context(), address)
		testutil.Must(t, err)
		if status.Current != 1 || status.Latest != laterVersion || len(status.Pending) < 3 || !slices.Contains(status.Pending, later) ||
			!strings.HasPrefix(status.Pending[len(status.Pending)-1], "job queue ") || strings.Contains(status.Location, "password") {
			t.Errorf("the status is %+v", status)
		}
	}
	before, err := database.Migrate(t.Context(), address, logger)
	testutil.Must(t, err)
	if before.Current != 1 || len(before.Pending) < 3 || !slices.Contains(before.Pending, later) {
		t.Errorf("the status before was %+v", before)
	}
	db := openDB(t, address)
	for range 2 { // while the database is open
		after, err := database.Migrate(t.Context(), address, logger)
		testutil.Must(t, err)
		if after.Current != after.Latest || after.Latest != before.Latest || len(after.Pending) > 0 {
			t.Errorf("the status after is %+v", after)
		}
	}
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "one") }))
}

// TestMigrate_errors checks that Migrate rejects a newer schema and a SQLite file in use.
func TestMigrate_errors(t *testing.T) {
	t.Parallel()
	address := services.NewDatabase(t)
	db := openDB(t, address)
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, ?)", true).Error
	}))
	if _, err := database.Migrate(t.Context(), address, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "upgrade the program") {
		t.Errorf("got %v", err)
	}
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("DELETE FROM goose_db_version WHERE version_id >= 1").Error
	}))
	if services.OnPostgres() {
		return // several processes can use the database
	}
	if _, err := database.Migrate(t.Context(), address, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another process is using it") {
		t.Errorf("in use: got %v", err)
	}
}
