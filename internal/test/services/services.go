// Package services gives tests a database: a SQLite file, or a database on the PostgreSQL
// server in AGENTMARKET_TEST_POSTGRES. The same tests run on both. Command testservices
// starts PostgreSQL and NATS and runs a command with them.
package services

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services/localserver"
	"agentmarket.space/server/internal/test/testutil"
)

const (
	postgresEnv = localserver.PostgresEnv
	natsEnv     = localserver.NATSEnv
	// templateDatabase has the schema; the databases of tests are copies of it.
	templateDatabase = "agentmarket_template"
	// templateLock is the advisory lock under which one process creates the template.
	templateLock = 0x74656d70
)

// OnPostgres reports whether the tests run on PostgreSQL.
func OnPostgres() bool { return os.Getenv(postgresEnv) != "" }

// NATSURL returns the address of the NATS server to test with, or "" without one.
func NATSURL() string { return os.Getenv(natsEnv) }

// NewDatabase returns the address of a new empty database with the schema.
func NewDatabase(tb testing.TB) string {
	tb.Helper()
	if OnPostgres() {
		return NewPostgresDatabase(tb)
	}
	path := SQLitePath(tb)
	file, err := migratedFile()
	testutil.Must(tb, err)
	testutil.Must(tb, os.WriteFile(path, file, 0o600))
	return path
}

// migratedFile returns a SQLite file with the schema, which tests copy. Migrating takes 100
// ms of CPU time, 40 % of a random sequence of markettest.
var migratedFile = sync.OnceValues(func() (file []byte, err error) {
	dir, err := os.MkdirTemp("", "agentmarket-template-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "market.db")
	db, err := database.Open(context.Background(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil { // writes the WAL into the file
		return nil, err
	}
	return os.ReadFile(path)
})

// SQLitePath returns the path of a SQLite file that does not exist yet.
func SQLitePath(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "market.db")
}

// SQLiteDriver returns the name of the database/sql driver for SQLite files. It depends on
// whether the tests are built with cgo.
func SQLiteDriver() string {
	if slices.Contains(sql.Drivers(), "sqlite") {
		return "sqlite"
	}
	return "sqlite3"
}

// ForEngine returns the text for the engine in use.
func ForEngine(sqlite, postgres string) string {
	if OnPostgres() {
		return postgres
	}
	return sqlite
}

// DropTriggersQuery returns a query that lists a DROP statement for every trigger.
func DropTriggersQuery() string {
	return ForEngine("SELECT 'DROP TRIGGER ' || name FROM sqlite_master WHERE type = 'trigger'",
		"SELECT 'DROP TRIGGER ' || tgname || ' ON ' || tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal")
}

// NewPostgresDatabase returns the address of a new empty PostgreSQL database with the
// schema. Without PostgreSQL it skips the test; make postgres runs it.
func NewPostgresDatabase(tb testing.TB) string {
	tb.Helper()
	server := os.Getenv(postgresEnv)
	if server == "" {
		tb.Skip("runs with make postgres")
	}
	ctx := context.WithoutCancel(tb.Context())
	conn, err := pgx.Connect(ctx, server)
	testutil.Must(tb, err)
	defer conn.Close(ctx) //nolint:errcheck // the connection is not used again
	ensureTemplate(tb, conn, server)
	name := "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	_, err = conn.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+templateDatabase)
	testutil.Must(tb, err)
	tb.Cleanup(func() {
		conn, err := pgx.Connect(ctx, server)
		testutil.Must(tb, err)
		defer conn.Close(ctx) //nolint:errcheck // the connection is not used again
		_, err = conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		testutil.Must(tb, err)
	})
	return databaseAddress(tb, server, name)
}

// NewPostgresCluster starts a PostgreSQL cluster for this test, which the test may stop,
// kill and restart. Its data survives a crash. Settings have the form "work_mem=1MB".
// Without PostgreSQL it skips the test.
func NewPostgresCluster(tb testing.TB, settings ...string) *localserver.Postgres {
	tb.Helper()
	if !OnPostgres() {
		tb.Skip("runs with make postgres")
	}
	cluster, err := localserver.NewPostgres(tb.Context(), settings...)
	testutil.Must(tb, err)
	tb.Cleanup(func() { testutil.Must(tb, cluster.Remove()) })
	testutil.Must(tb, cluster.Start(tb.Context()))
	return cluster
}

// NewStandby starts a synchronous standby of a cluster.
func NewStandby(tb testing.TB, primary *localserver.Postgres) *localserver.Postgres {
	tb.Helper()
	standby, err := primary.Standby(tb.Context())
	testutil.Must(tb, err)
	tb.Cleanup(func() { testutil.Must(tb, standby.Remove()) })
	return standby
}

// NewNATSServer returns a NATS server for this test that is not started yet.
func NewNATSServer(tb testing.TB) *localserver.NATS {
	tb.Helper()
	if !OnPostgres() {
		tb.Skip("runs with make postgres")
	}
	server, err := localserver.NewNATS(tb.Context())
	testutil.Must(tb, err)
	tb.Cleanup(func() { testutil.Must(tb, server.Remove()) })
	return server
}

// ensureTemplate creates the template database unless it exists.
func ensureTemplate(tb testing.TB, conn *pgx.Conn, server string) {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	_, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock)
	testutil.Must(tb, err)
	defer conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", templateLock) //nolint:errcheck // it ends with the connection
	var exists bool
	testutil.Must(tb, conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", templateDatabase).Scan(&exists))
	if exists {
		return
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+templateDatabase+"_raw")
	testutil.Must(tb, err)
	db, err := database.Open(ctx, databaseAddress(tb, server, templateDatabase+"_raw"), slog.New(slog.DiscardHandler))
	testutil.Must(tb, err)
	testutil.Must(tb, db.Close())
	_, err = conn.Exec(ctx, "ALTER DATABASE "+templateDatabase+"_raw RENAME TO "+templateDatabase)
	testutil.Must(tb, err)
}

// databaseAddress returns the address of a database on the server.
func databaseAddress(tb testing.TB, server, name string) string {
	tb.Helper()
	u, err := url.Parse(server)
	testutil.Must(tb, err)
	u.Path = "/" + name
	query := u.Query()
	query.Set("pool_max_conns", "8") // many tests share the server
	u.RawQuery = query.Encode()
	return u.String()
}
