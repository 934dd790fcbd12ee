// Package services gives tests a store: a SQLitePath file of their own, or a database
// of their own on the PostgreSQL that AGENTMARKET_TEST_POSTGRES names. The same
// tests run on both: go run ./internal/engines/with starts PostgreSQL and NATSURL,
// runs a command with them and stops them.
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
	// templateDatabase is a database with the schema, of which the others are copies.
	templateDatabase = "agentmarket_template"
	// templateLock is what the processes that want to make it take turns by.
	templateLock = 0x74656d70
)

// OnPostgres reports whether the tests run on PostgreSQL.
func OnPostgres() bool { return os.Getenv(postgresEnv) != "" }

// NATSURL is the address of the NATSURL server to test with, empty without one.
func NATSURL() string { return os.Getenv(natsEnv) }

// NewDatabase is where a store can be opened that is empty, has the schema and is this
// test's alone.
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

// migratedFile is a SQLitePath file with the schema, of which those of tests are copies. To
// migrate one takes a tenth of a second of a core, which was two fifths of a walk of
// markettest.
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
	if err := db.Close(); err != nil { // and with it the log is in the file
		return nil, err
	}
	return os.ReadFile(path)
})

// SQLitePath is the path of a file for this test alone, which is not there yet.
func SQLitePath(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "market.db")
}

// SQLiteDriver is the name to open a SQLitePath file with by database/sql alone: the driver
// that the store uses, which goes by whether the tests were built with cgo.
func SQLiteDriver() string {
	if slices.Contains(sql.Drivers(), "sqlite") {
		return "sqlite"
	}
	return "sqlite3"
}

// ForEngine is what the engine in use says, where the two have words of their own.
func ForEngine(sqlite, postgres string) string {
	if OnPostgres() {
		return postgres
	}
	return sqlite
}

// DropTriggersQuery is a query for the statements that drop every trigger.
func DropTriggersQuery() string {
	return ForEngine("SELECT 'DROP TRIGGER ' || name FROM sqlite_master WHERE type = 'trigger'",
		"SELECT 'DROP TRIGGER ' || tgname || ' ON ' || tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal")
}

// NewPostgresDatabase is the address of an empty database for this test alone. Without
// PostgreSQL the test is skipped: make postgres runs it, and fails in CI when
// there is none.
func NewPostgresDatabase(tb testing.TB) string {
	tb.Helper()
	server := os.Getenv(postgresEnv)
	if server == "" {
		tb.Skip("runs with make postgres")
	}
	ctx := context.WithoutCancel(tb.Context())
	conn, err := pgx.Connect(ctx, server)
	testutil.Must(tb, err)
	defer conn.Close(ctx) //nolint:errcheck // nothing depends on it
	ensureTemplate(tb, conn, server)
	name := "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	_, err = conn.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+templateDatabase)
	testutil.Must(tb, err)
	tb.Cleanup(func() {
		conn, err := pgx.Connect(ctx, server)
		testutil.Must(tb, err)
		defer conn.Close(ctx) //nolint:errcheck // nothing depends on it
		_, err = conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		testutil.Must(tb, err)
	})
	return databaseAddress(tb, server, name)
}

// NewPostgresCluster is a running cluster for this test alone, to be stopped, killed
// and started again. It loses nothing in a crash. Settings are like
// "work_mem=1MB". It is skipped as NewPostgresDatabase is.
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

// NewStandby is a running synchronous standby of a cluster for this test alone.
func NewStandby(tb testing.TB, primary *localserver.Postgres) *localserver.Postgres {
	tb.Helper()
	standby, err := primary.Standby(tb.Context())
	testutil.Must(tb, err)
	tb.Cleanup(func() { testutil.Must(tb, standby.Remove()) })
	return standby
}

// NewNATSServer is a place for a NATSURL server of this test alone, which does not
// run yet.
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

// ensureTemplate makes the template unless it is there.
func ensureTemplate(tb testing.TB, conn *pgx.Conn, server string) {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	_, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock)
	testutil.Must(tb, err)
	defer conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", templateLock) //nolint:errcheck // it ends with the connection
	var there bool
	testutil.Must(tb, conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", templateDatabase).Scan(&there))
	if there {
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

// databaseAddress is the address of a database on the server.
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
