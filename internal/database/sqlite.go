package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"gorm.io/gorm"
	gormlogger "gorm.io/gorm/logger"
)

// readConnections is the number of read connections on SQLite.
const readConnections = 4

// openSQLite opens a locked file and starts the writer.
func openSQLite(ctx context.Context, file *storeFile, lock *fileLock, logger *slog.Logger) (*DB, error) {
	path := file.path
	db := &DB{
		queue: make(chan *writeRequest, maxBatch), closing: make(chan struct{}), done: make(chan struct{}), lock: lock, file: file, logger: logger,
		location: "sqlite " + path, replicaID: uuid.NewString(), rowVersions: newRowVersions(), jobNotifier: newJobNotifier(), heavyReads: newHeavyReads(),
	}
	err := file.rejectForeignLog(ctx)
	if err != nil {
		return nil, err
	}
	if err = rejectForeignFile(ctx, path); err != nil {
		return nil, err
	}
	// With recursive triggers, a REPLACE fires the DELETE triggers.
	db.writer, err = file.connect(url.Values{
		"mode": {"rw"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_txlock": {"immediate"}, "_busy_timeout": {"10000"},
		"_foreign_keys": {"on"}, "_recursive_triggers": {"on"}, "_cache_size": {"-32000"}, "_stmt_cache_size": {"128"},
	}, 1, db.rowVersions)
	if err != nil {
		return nil, err
	}
	if err = db.prepare(ctx); err != nil {
		return nil, errors.Join(err, closeGorm(db.writer), closeGorm(db.reader))
	}
	go db.runWriter()
	go db.watchFile()
	return db, nil
}

// rejectForeignFile returns an error if an existing file holds the tables of
// another program. It does not write to the file.
func rejectForeignFile(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return errors.New("the path is a directory, want a file")
	case err != nil || info.Size() == 0:
		return nil //nolint:nilerr // connect reports why it cannot open the file
	}
	file, err := os.Open(path) //nolint:gosec // the operator chooses the path
	if err != nil {
		return err // some drivers do not report the reason
	}
	if err := file.Close(); err != nil {
		return err
	}
	reader, err := connect(path, readerParams())
	if err != nil {
		return err
	}
	var tables []string
	err = reader.WithContext(ctx).Raw(`SELECT name FROM sqlite_master WHERE type = 'table'
		AND name NOT IN ('goose_db_version', 'sqlite_sequence') ORDER BY name = 'transfers' DESC, name LIMIT 1`).Scan(&tables).Error
	if err == nil && len(tables) > 0 && tables[0] != "transfers" {
		err = foreignTableError(tables[0])
	}
	return errors.Join(err, closeGorm(reader))
}

func foreignTableError(table string) error {
	return fmt.Errorf("not an AgentMarket database: the table %q belongs to another program", table)
}

// prepare checks the write connection, applies migrations, registers this process,
// and opens the job queue and the read connections.
func (db *DB) prepare(ctx context.Context) error {
	if err := checkDurable(db.writer); err != nil {
		return err
	}
	// Savepoints keep a journal of changed pages. In a file, the journal caused three
	// of four disk writes. The pool keeps its only connection, and thus this setting.
	if err := db.writer.Exec("PRAGMA temp_store = MEMORY").Error; err != nil {
		return err
	}
	sqlDB, err := db.writer.DB()
	if err != nil {
		return err
	}
	if err = migrate(ctx, sqlDB, sqliteDialect); err != nil {
		return err
	}
	if err := db.startGeneration(); err != nil {
		return err
	}
	if err := db.rowVersions.installTriggers(db.writer); err != nil {
		return err
	}
	// This process holds the file lock, so no other replica is alive.
	if err := db.writer.Exec("DELETE FROM replicas").Error; err != nil {
		return err
	}
	if err := db.writer.Exec("INSERT INTO replicas (id, seen_at) VALUES (?, 0)", db.replicaID).Error; err != nil {
		return err
	}
	db.jobs, err = river.NewClient(newSQLiteJobDriver(sqlDB, db.jobNotifier), &river.Config{Logger: db.logger})
	if err != nil {
		return fmt.Errorf("open job queue: %w", err)
	}
	if db.reader, err = db.file.connect(readerParams(), readConnections, nil); err != nil {
		return err
	}
	// A read opens the log. The pool keeps this connection, so the log and the shared
	// memory stay the same files until Close.
	if err := db.reader.Exec("SELECT COUNT(*) FROM replicas").Error; err != nil {
		return err
	}
	return db.file.record(db.file.path+"-wal", db.file.path+"-shm")
}

// connect opens a pool with one connection to the file at path. The pragmas are in the
// DSN, so every connection has them.
func connect(path string, params url.Values) (*gorm.DB, error) {
	connector, err := newConnector(fileURI(path), params, nil)
	if err != nil {
		return nil, err
	}
	return openPool(connector, 1)
}

// connect opens a pool of connections to the open file of a store. If versions is not
// nil, the connections report row changes to it.
func (f *storeFile) connect(params url.Values, connections int, versions *rowVersions) (*gorm.DB, error) {
	connector, err := newConnector(fileURI(f.path), params, versions)
	if err != nil {
		return nil, err
	}
	return openPool(guardedConnector{connector, f}, connections)
}

func fileURI(path string) string { return "file:" + (&url.URL{Path: path}).EscapedPath() }

func openPool(connector driver.Connector, connections int) (*gorm.DB, error) {
	sqlDB := sql.OpenDB(connector)
	sqlDB.SetMaxOpenConns(connections)
	sqlDB.SetMaxIdleConns(connections)
	db, err := gorm.Open(sqliteDialector(sqlDB), &gorm.Config{ // gorm.Open keeps this pointer, so pools must not share it
		SkipDefaultTransaction:   true,
		DisableNestedTransaction: true,
		TranslateError:           true,
		Logger:                   gormlogger.Discard,
	})
	if err != nil {
		return nil, errors.Join(err, sqlDB.Close())
	}
	return db, nil
}

// readerParams are the connection parameters for reads.
func readerParams() url.Values {
	return url.Values{
		"mode": {"ro"}, "_query_only": {"on"}, "_busy_timeout": {"10000"}, "_cache_size": {"-16000"}, "_stmt_cache_size": {"128"},
	}
}

// checkDurable returns an error if commits on this connection could be lost, or if
// the file is damaged.
func checkDurable(db *gorm.DB) error {
	var synchronous int
	var journal string
	if err := db.Raw("PRAGMA synchronous").Scan(&synchronous).Error; err != nil {
		return err
	}
	if err := db.Raw("PRAGMA journal_mode").Scan(&journal).Error; err != nil {
		return err
	}
	if synchronous < 2 || journal != "wal" {
		return fmt.Errorf("synchronous is %d and journal_mode is %s, want 2 (FULL) and wal", synchronous, journal)
	}
	return checkIntegrity(db)
}

// checkIntegrity returns an error if SQLite finds the file damaged.
func checkIntegrity(db *gorm.DB) error {
	var result string
	if err := db.Raw("PRAGMA quick_check(1)").Scan(&result).Error; err != nil {
		return err
	}
	if result != "ok" {
		return fmt.Errorf("the file is damaged: %s", strings.ReplaceAll(result, "\n", ", "))
	}
	return nil
}

func closeGorm(db *gorm.DB) error {
	if db == nil {
		return nil
	}
	sqlDB, err := db.DB()
	if err != nil {
		return err
	}
	return sqlDB.Close()
}
