package database

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed migrations
var migrationFiles embed.FS

// migrations holds the SQL files of each engine. Tests add files.
var migrations fs.FS = migrationFiles //nolint:gochecknoglobals // only tests change it

// dialect is what migrations need to know about an engine.
type dialect struct {
	folder    string
	goose     goose.Dialect
	jobDriver func(*sql.DB) riverdriver.Driver[*sql.Tx]
}

var (
	sqliteDialect   = dialect{"migrations/sqlite", goose.DialectSQLite3, func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riversqlite.New(db) }}         //nolint:gochecknoglobals // constant
	postgresDialect = dialect{"migrations/postgres", goose.DialectPostgres, func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riverdatabasesql.New(db) }} //nolint:gochecknoglobals // constant
)

// migrate applies the pending migrations of this program and of the job queue.
func migrate(ctx context.Context, sqlDB *sql.DB, d dialect) error {
	folder, err := fs.Sub(migrations, d.folder)
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(d.goose, sqlDB, folder)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if err = rejectNewerSchema(ctx, provider); err != nil {
		return err
	}
	if _, err = provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err = fillWords(ctx, sqlDB, d); err != nil {
		return err
	}
	jobs, err := rivermigrate.New(d.jobDriver(sqlDB), nil)
	if err != nil {
		return fmt.Errorf("read job queue migrations: %w", err)
	}
	if _, err = jobs.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate job queue: %w", err)
	}
	return nil
}

// lockTimeout is how long a migration waits for a table lock on PostgreSQL. Other
// statements on that table queue behind the migration and time out after
// writeRetryTimeout.
const lockTimeout = writeRetryTimeout / 2

// sqlStateLockTimeout is the PostgreSQL error code for a lock timeout.
const sqlStateLockTimeout = "55P03"

// migrate applies pending migrations while other processes use the database. If a
// migration cannot lock its tables within timeout, it is rolled back and migrate
// returns an error.
func (s *postgresStore) migrate(ctx context.Context, timeout time.Duration) (err error) {
	sqlDB := stdlib.OpenDB(*s.pool.Config().ConnConfig, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT set_config('lock_timeout', $1, false)", strconv.FormatInt(timeout.Milliseconds(), 10))
		return err
	}))
	defer func() { err = errors.Join(err, sqlDB.Close()) }()
	err = migrate(ctx, sqlDB, postgresDialect)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == sqlStateLockTimeout {
		return fmt.Errorf("migrate: could not lock a table within %s; nothing was changed: "+
			"try again, or end the oldest transaction in pg_stat_activity first", timeout)
	}
	return err
}

// migrateFile applies pending migrations to a SQLite file that no process uses.
func migrateFile(ctx context.Context, path string) (err error) {
	// Journal mode DELETE leaves no WAL file, so the file is complete on its own.
	db, err := connect(path, url.Values{"_journal_mode": {"DELETE"}, "_synchronous": {"FULL"}, "_foreign_keys": {"on"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeGorm(db)) }()
	sqlDB, err := db.DB()
	if err != nil {
		return err
	}
	return migrate(ctx, sqlDB, sqliteDialect)
}

// Migrate applies pending migrations to the database at address and returns its
// status before. A SQLite file must exist, and no server may use it. A PostgreSQL
// database can be empty. Migrate returns the same errors as [Open].
func Migrate(ctx context.Context, address string, logger *slog.Logger) (before *SchemaStatus, err error) {
	before, err = ReadSchemaStatus(ctx, address)
	if err != nil || len(before.Pending) == 0 {
		return before, err
	}
	db, err := Open(ctx, address, logger)
	if err != nil {
		return nil, err
	}
	return before, db.Close()
}
