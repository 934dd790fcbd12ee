package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"

	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/rivermigrate"
)

// SchemaStatus is how the schema of a store compares with that of this program.
type SchemaStatus struct {
	Location string // the engine and where it is, without a password
	Current  int64  // the number of the newest migration that it has had; 0 for none
	Latest   int64  // of the newest that this program has
	// Pending are the migrations to come, in their order, and those of the job queue.
	Pending []string
}

// Migrate brings the store at address, which nobody may be serving, to the schema of
// this program and returns what it was like before. A SQLite file must be there; a
// PostgreSQL database may be empty. What [Open] refuses is refused, and a store that is
// up to date is left as it is.
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

// ReadSchemaStatus compares the schema of the store at address, which a server may be
// serving, with this program's, and changes nothing. One that is newer is an error.
func ReadSchemaStatus(ctx context.Context, address string) (found *SchemaStatus, err error) {
	if IsPostgres(address) {
		return readPostgresSchemaStatus(ctx, address)
	}
	if err := checkPath(address); err != nil {
		return nil, err
	}
	if _, err := os.Stat(address); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := rejectForeignFile(ctx, address); err != nil {
		return nil, fmt.Errorf("open database %s: %w", address, err)
	}
	reader, err := connect(address, readerParams(), 1, nil)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", address, err)
	}
	defer func() { err = errors.Join(err, closeGorm(reader)) }()
	return compareSchema(reader.WithContext(ctx), sqliteDialect, "sqlite "+address)
}

func readPostgresSchemaStatus(ctx context.Context, address string) (*SchemaStatus, error) {
	s, handle, err := dialPostgres(ctx, address, nil)
	if err != nil {
		return nil, err
	}
	defer s.closePools()
	at := redactedAddress(s.pool.Config())
	if err := rejectForeignTables(ctx, s.sqlDB); err != nil {
		return nil, fmt.Errorf("open database %s: %w", at, err)
	}
	return compareSchema(handle.WithContext(ctx), postgresDialect, at)
}

func compareSchema(state *Snapshot, of dialect, place string) (*SchemaStatus, error) {
	found := &SchemaStatus{Location: place}
	if state.Migrator().HasTable("goose_db_version") {
		have, err := SchemaVersion(state)
		if err != nil {
			return nil, err
		}
		found.Current = have
	}
	files, err := fs.Glob(migrations, of.folder+"/*.sql") // in order
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if found.Latest, err = goose.NumericComponent(file); err != nil {
			return nil, err
		}
		if found.Latest > found.Current {
			found.Pending = append(found.Pending, path.Base(file))
		}
	}
	if err := checkSchemaVersion(found.Current, found.Latest); err != nil {
		return nil, fmt.Errorf("open database %s: %w", place, err)
	}
	return found, found.addPendingJobMigrations(state, of)
}

// addPendingJobMigrations adds the migrations of the job queue that are missing.
func (s *SchemaStatus) addPendingJobMigrations(state *Snapshot, of dialect) error {
	var have int
	if state.Migrator().HasTable("river_migration") {
		if err := state.Raw("SELECT COALESCE(MAX(version), 0) FROM river_migration").Row().Scan(&have); err != nil {
			return fmt.Errorf("read schema version of the job queue: %w", err)
		}
	}
	jobs, err := rivermigrate.New(of.jobDriver(nil), nil)
	if err != nil {
		return fmt.Errorf("read job migrations: %w", err)
	}
	for _, migration := range jobs.AllVersions() {
		if migration.Version > have {
			s.Pending = append(s.Pending, fmt.Sprintf("job queue %d: %s", migration.Version, migration.Name))
		}
	}
	return nil
}
