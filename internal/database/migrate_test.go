package database_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestMigrate_lockTimeout checks that a migration times out while a transaction reads its
// table, and changes nothing. It succeeds after that transaction ends.
func TestMigrate_lockTimeout(t *testing.T) { // not parallel: see AddMigration
	address := services.NewPostgresDatabase(t)
	database.AddMigration(t, later, laterText)
	pool, err := pgxpool.New(t.Context(), address)
	testutil.Must(t, err)
	t.Cleanup(pool.Close)
	db := stdlib.OpenDBFromPool(pool)
	for _, statement := range []string{"DROP SCHEMA public CASCADE", "CREATE SCHEMA public"} {
		_, err := pool.Exec(t.Context(), statement)
		testutil.Must(t, err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations/postgres"))
	testutil.Must(t, err)
	_, err = provider.Up(t.Context())
	testutil.Must(t, err)
	current, err := provider.GetDBVersion(t.Context())
	testutil.Must(t, err)
	reader, err := pool.Begin(t.Context())
	testutil.Must(t, err)
	_, err = reader.Exec(t.Context(), "SELECT id FROM tasks")
	testutil.Must(t, err)

	err = database.MigratePostgres(t.Context(), address, 50*time.Millisecond)
	wantError(t, err, "could not lock a table within 50ms; nothing was changed: try again")
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines: %s", err)
	}
	version := func() int64 {
		version, err := provider.GetDBVersion(t.Context())
		testutil.Must(t, err)
		return version
	}
	if v := version(); v != current {
		t.Errorf("the schema has version %d", v)
	}
	testutil.Must(t, reader.Rollback(t.Context()))
	testutil.Must(t, database.MigratePostgres(t.Context(), address, 10*time.Second))
	opened, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	testutil.Must(t, opened.Close())
	if v := version(); v != laterVersion {
		t.Errorf("the schema has version %d", v)
	}
}
