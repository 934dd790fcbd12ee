package database

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed migrations
var migrations embed.FS

// dialect is an engine as migrations need it.
type dialect struct {
	folder string
	goose  goose.Dialect
	jobs   func(*sql.DB) riverdriver.Driver[*sql.Tx]
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
	if err = refuseNewer(ctx, provider); err != nil {
		return err
	}
	if _, err = provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	jobs, err := rivermigrate.New(to.jobs(sqlDB), nil)
	if err != nil {
		return fmt.Errorf("read job migrations: %w", err)
	}
	if _, err = jobs.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate job queue: %w", err)
	}
	return nil
}

// refuseNewer stops a program that is older than the schema.
func refuseNewer(ctx context.Context, provider *goose.Provider) error {
	have, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have > known {
		return fmt.Errorf("the schema has version %d, this program knows %d: run a newer one", have, known)
	}
	return nil
}
