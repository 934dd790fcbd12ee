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
)

// raw opens a store as any program can.
func raw(t *testing.T, address string) *sql.DB {
	t.Helper()
	if !services.OnPostgres() {
		db, err := sql.Open(services.FileDriver(), address)
		must(t, err)
		t.Cleanup(func() { must(t, db.Close()) })
		return db
	}
	pool, err := pgxpool.New(t.Context(), address)
	must(t, err)
	t.Cleanup(pool.Close)
	return stdlib.OpenDBFromPool(pool)
}

// first is a store with the first migration alone.
func first(t *testing.T) (address string) {
	t.Helper()
	address = services.SQLite(t)
	folder, dialect := "migrations/sqlite", goose.DialectSQLite3
	if services.OnPostgres() {
		address = services.Postgres(t)
	}
	db := raw(t, address)
	if services.OnPostgres() {
		folder, dialect = "migrations/postgres", goose.DialectPostgres
		_, err := db.ExecContext(t.Context(), "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
		must(t, err)
	}
	provider, err := goose.NewProvider(dialect, db, os.DirFS(folder))
	must(t, err)
	_, err = provider.UpTo(t.Context(), 1)
	must(t, err)
	return address
}

// TestMigrate: what a store lacks is told without changing it, then applied, and then
// there is nothing more to do, for a server either.
func TestMigrate(t *testing.T) {
	t.Parallel()
	address := first(t)
	logger := slog.New(slog.DiscardHandler)
	for range 2 { // looking changes nothing
		found, err := database.ReadSchema(t.Context(), address)
		must(t, err)
		if found.Have != 1 || found.Known < 10 || !slices.Contains(found.Missing, "0010_audit.sql") || slices.Contains(found.Missing, "0001_init.sql") ||
			!strings.HasPrefix(found.Missing[len(found.Missing)-1], "job queue ") || strings.Contains(found.Place, "password") {
			t.Errorf("the schema is %+v", found)
		}
	}
	before, err := database.Migrate(t.Context(), address, logger)
	must(t, err)
	if before.Have != 1 || len(before.Missing) == 0 {
		t.Errorf("it was %+v", before)
	}
	db := open(t, address)
	for range 2 { // once beside a server
		after, err := database.Migrate(t.Context(), address, logger)
		must(t, err)
		if after.Have != after.Known || after.Known != before.Known || len(after.Missing) > 0 {
			t.Errorf("it is %+v", after)
		}
	}
	must(t, db.Write(t.Context(), func(tx *database.Tx) error { return add(tx, "one") }))
}

// TestMigrate_refused: what a later version left is not touched.
func TestMigrate_refused(t *testing.T) {
	t.Parallel()
	address := services.Address(t)
	db := open(t, address)
	must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, ?)", true).Error
	}))
	if _, err := database.Migrate(t.Context(), address, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "run a newer one") {
		t.Errorf("got %v", err)
	}
	must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("DELETE FROM goose_db_version WHERE version_id >= 10").Error
	}))
	if services.OnPostgres() {
		return // replicas start beside each other
	}
	if _, err := database.Migrate(t.Context(), address, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another process serves it") {
		t.Errorf("beside a server: got %v", err)
	}
}
