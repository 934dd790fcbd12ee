package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/rivermigrate"
)

// SchemaStatus compares the schema of a database with the migrations of this
// program.
type SchemaStatus struct {
	Location string   // engine and address, without a password
	Current  int64    // number of the newest applied migration; 0 if there is none
	Latest   int64    // number of the newest migration of this program
	Pending  []string // migrations to apply, in order, then those of the job queue
}

// ReadSchemaStatus returns the status of the database at address and changes
// nothing. A server can use the database at the same time. A schema newer than this
// program is an error.
func ReadSchemaStatus(ctx context.Context, address string) (status *SchemaStatus, err error) {
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
	reader, err := connect(address, readerParams())
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", address, err)
	}
	defer func() { err = errors.Join(err, closeGorm(reader)) }()
	return compareSchema(reader.WithContext(ctx), sqliteDialect, "sqlite "+address)
}

func readPostgresSchemaStatus(ctx context.Context, address string) (*SchemaStatus, error) {
	s, db, err := dialPostgres(ctx, address, nil)
	if err != nil {
		return nil, err
	}
	defer s.closePools()
	location := redactedAddress(s.pool.Config())
	if err := rejectForeignTables(ctx, s.sqlDB); err != nil {
		return nil, fmt.Errorf("open database %s: %w", location, err)
	}
	return compareSchema(db.WithContext(ctx), postgresDialect, location)
}

func compareSchema(snapshot *Snapshot, d dialect, location string) (*SchemaStatus, error) {
	status := &SchemaStatus{Location: location}
	if snapshot.Migrator().HasTable("goose_db_version") {
		current, err := SchemaVersion(snapshot)
		if err != nil {
			return nil, err
		}
		status.Current = current
	}
	files, err := fs.Glob(migrations, d.folder+"/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if status.Latest, err = goose.NumericComponent(file); err != nil {
			return nil, err
		}
		if status.Latest > status.Current {
			status.Pending = append(status.Pending, path.Base(file))
		}
	}
	if err := checkSchemaVersion(status.Current, status.Latest); err != nil {
		return nil, fmt.Errorf("open database %s: %w", location, err)
	}
	return status, status.addPendingJobMigrations(snapshot, d)
}

// addPendingJobMigrations appends the pending migrations of the job queue.
func (s *SchemaStatus) addPendingJobMigrations(snapshot *Snapshot, d dialect) error {
	var current int
	if snapshot.Migrator().HasTable("river_migration") {
		if err := snapshot.Raw("SELECT COALESCE(MAX(version), 0) FROM river_migration").Row().Scan(&current); err != nil {
			return fmt.Errorf("read schema version of the job queue: %w", err)
		}
	}
	jobs, err := rivermigrate.New(d.jobDriver(nil), nil)
	if err != nil {
		return fmt.Errorf("read job queue migrations: %w", err)
	}
	for _, migration := range jobs.AllVersions() {
		if migration.Version > current {
			s.Pending = append(s.Pending, fmt.Sprintf("job queue %d: %s", migration.Version, migration.Name))
		}
	}
	return nil
}

// rejectNewerSchema returns an error if the schema is newer than this program.
func rejectNewerSchema(ctx context.Context, provider *goose.Provider) error {
	current, latest, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	return checkSchemaVersion(current, latest)
}

func checkSchemaVersion(current, latest int64) error {
	if current > latest {
		return fmt.Errorf("schema version %d is newer than version %d of this program: upgrade the program", current, latest)
	}
	return nil
}

// SchemaVersion returns the number of the newest migration applied to a database.
// An inspected database can have an older version than this program.
func SchemaVersion(snapshot *Snapshot) (version int64, err error) {
	if err := snapshot.Raw("SELECT MAX(version_id) FROM goose_db_version").Row().Scan(&version); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return version, nil
}

// requireKnownSchema wraps fn with a check that rejects a schema newer than this
// program.
func requireKnownSchema(d dialect, fn func(*Snapshot) error) func(*Snapshot) error {
	return func(snapshot *Snapshot) error {
		current, err := SchemaVersion(snapshot)
		if err != nil {
			return err
		}
		files, err := fs.Glob(migrations, d.folder+"/*.sql") // sorted
		if err != nil {
			return err
		}
		latest, err := goose.NumericComponent(files[len(files)-1])
		if err != nil {
			return err
		}
		if err := checkSchemaVersion(current, latest); err != nil {
			return err
		}
		return fn(snapshot)
	}
}
