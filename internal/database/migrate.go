package database

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
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
var embedded embed.FS

// migrations holds the SQL files of each engine. Tests add files to it.
var migrations fs.FS = embedded //nolint:gochecknoglobals // only tests change it

// dialect is an engine as migrations need it.
type dialect struct {
	folder    string
	goose     goose.Dialect
	jobDriver func(*sql.DB) riverdriver.Driver[*sql.Tx]
}

var (
	sqliteDialect   = dialect{"migrations/sqlite", goose.DialectSQLite3, func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riversqlite.New(db) }}         //nolint:gochecknoglobals // constant
	postgresDialect = dialect{"migrations/postgres", goose.DialectPostgres, func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riverdatabasesql.New(db) }} //nolint:gochecknoglobals // constant
)

// migrate applies what is missing of our migrations and of the job queue's.
func migrate(ctx context.Context, sqlDB *sql.DB, to dialect) error {
	folder, err := fs.Sub(migrations, to.folder)
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(to.goose, sqlDB, folder)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if err = rejectNewerSchema(ctx, provider); err != nil {
		return err
	}
	if _, err = provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	jobs, err := rivermigrate.New(to.jobDriver(sqlDB), nil)
	if err != nil {
		return fmt.Errorf("read job migrations: %w", err)
	}
	if _, err = jobs.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate job queue: %w", err)
	}
	return nil
}

// lockTimeout is how long a migration waits for a lock on PostgreSQL. Whoever needs the
// same table waits behind it, and gives up after [patience].
const lockTimeout = writeRetryTimeout / 2

// sqlStateLockTimeout is what PostgreSQL says when a lock was waited for in vain.
const sqlStateLockTimeout = "55P03"

// migrate is migrate where others may be at the same tables: a step that cannot have
// its locks in time is undone as a whole, and the error says so.
func (s *postgresStore) migrate(ctx context.Context, within time.Duration) (err error) {
	patient := stdlib.OpenDB(*s.pool.Config().ConnConfig, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT set_config('lock_timeout', $1, false)", strconv.FormatInt(within.Milliseconds(), 10))
		return err
	}))
	defer func() { err = errors.Join(err, patient.Close()) }()
	err = migrate(ctx, patient, postgresDialect)
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == sqlStateLockTimeout {
		return fmt.Errorf("migrate: a table that has to change was in use for more than %s, so it was not changed: "+
			"start again, or end the transaction first that pg_stat_activity shows as the oldest", within)
	}
	return err
}

// rejectNewerSchema stops a program that is older than the schema.
func rejectNewerSchema(ctx context.Context, provider *goose.Provider) error {
	have, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	return checkSchemaVersion(have, known)
}

func checkSchemaVersion(have, known int64) error {
	if have > known {
		return fmt.Errorf("the schema has version %d, this program knows %d: run a newer one", have, known)
	}
	return nil
}

// SchemaVersion returns the number of the newest migration that a state has had:
// of one that is inspected it may be older than the program's.
func SchemaVersion(state *Snapshot) (version int64, err error) {
	if err := state.Raw("SELECT MAX(version_id) FROM goose_db_version").Row().Scan(&version); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return version, nil
}

// requireKnownSchema has fn run on a state whose schema is not newer than the program.
func requireKnownSchema(to dialect, fn func(*Snapshot) error) func(*Snapshot) error {
	return func(state *Snapshot) error {
		have, err := SchemaVersion(state)
		if err != nil {
			return err
		}
		files, err := fs.Glob(migrations, to.folder+"/*.sql") // in order
		if err != nil {
			return err
		}
		known, err := goose.NumericComponent(files[len(files)-1])
		if err != nil {
			return err
		}
		if err := checkSchemaVersion(have, known); err != nil {
			return err
		}
		return fn(state)
	}
}

// migrateFile brings a file that nobody serves up to date.
func migrateFile(ctx context.Context, path string) (err error) {
	// Nothing beside the file: it is to be whole by itself.
	handle, err := connect(path, url.Values{"_journal_mode": {"DELETE"}, "_synchronous": {"FULL"}, "_foreign_keys": {"on"}}, 1, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeGorm(handle)) }()
	sqlDB, err := handle.DB()
	if err != nil {
		return err
	}
	return migrate(ctx, sqlDB, sqliteDialect)
}
