package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"gorm.io/gorm"
	gormlogger "gorm.io/gorm/logger"

	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// readConnections is how many connections serve [DB.Read] on SQLite.
const readConnections = 4

// DB is an open store. It is safe for concurrent use.
type DB struct {
	writer         *gorm.DB // on SQLite the one writing connection
	reader         *gorm.DB // on SQLite read-only
	queue          chan *writeRequest
	closing        chan struct{}          // closed by Close
	done           chan struct{}          // closed when the writer goroutine has ended
	jobs           *river.Client[*sql.Tx] // nil on PostgreSQL
	lock           *fileLock
	pg             *postgresStore // nil on SQLite
	location       string
	replicaID      string
	logger         *slog.Logger
	dataVersion    atomic.Int64
	rowVersions    *rowVersions // nil on PostgreSQL
	commitObserver atomic.Pointer[func(CommitStats)]
}

// Open opens the store at address and brings its schema up to date: a
// postgres:// address, or the path of a SQLite file, which is made when it is
// missing. Close releases it. A store that cannot be reached or written, a file
// that another process serves or that is corrupt, and a schema that is newer
// than the program are errors that say so.
func Open(ctx context.Context, address string, logger *slog.Logger) (*DB, error) {
	if IsPostgres(address) {
		return openPostgres(ctx, address, logger)
	}
	if err := checkPath(address); err != nil {
		return nil, err
	}
	lock, err := lockFile(address)
	if err != nil {
		return nil, err
	}
	db, err := openSQLite(ctx, address, lock, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", address, err), lock.release())
	}
	return db, nil
}

func openSQLite(ctx context.Context, path string, lock *fileLock, logger *slog.Logger) (*DB, error) {
	db := &DB{
		queue: make(chan *writeRequest, maxBatch), closing: make(chan struct{}), done: make(chan struct{}), lock: lock, logger: logger,
		location: "sqlite " + AbsPath(path), replicaID: uuid.NewString(), rowVersions: newRowVersions(),
	}
	err := rejectForeignFile(ctx, path)
	if err != nil {
		return nil, err
	}
	// With recursive triggers a REPLACE counts as the deletion that it is.
	db.writer, err = connect(path, url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_txlock": {"immediate"}, "_busy_timeout": {"10000"},
		"_foreign_keys": {"on"}, "_recursive_triggers": {"on"}, "_cache_size": {"-32000"}, "_stmt_cache_size": {"128"},
	}, 1, db.rowVersions)
	if err != nil {
		return nil, err
	}
	if err = db.prepare(ctx, path); err != nil {
		return nil, errors.Join(err, closeGorm(db.writer), closeGorm(db.reader))
	}
	go db.runWriter()
	return db, nil
}

// rejectForeignFile looks, without writing, whether a file that is there holds the
// tables of another program.
func rejectForeignFile(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return errors.New("it is a directory")
	case err != nil || info.Size() == 0:
		return nil //nolint:nilerr // it is made, or cannot be and that is said then
	}
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return err // not every driver says why
	}
	if err := file.Close(); err != nil {
		return err
	}
	reader, err := connect(path, readerParams(), 1, nil)
	if err != nil {
		return err
	}
	var tables []string
	err = reader.WithContext(ctx).Raw(`SELECT name FROM sqlite_master WHERE type = 'table'
		AND name NOT IN ('goose_db_version', 'sqlite_sequence') ORDER BY name = 'transfers' DESC, name LIMIT 1`).Scan(&tables).Error
	if err == nil && len(tables) > 0 && tables[0] != "transfers" {
		err = fmt.Errorf("it is another program's database: it has a table %q", tables[0])
	}
	return errors.Join(err, closeGorm(reader))
}

// prepare checks the writing connection, migrates, and opens what else a DB has.
func (db *DB) prepare(ctx context.Context, path string) error {
	if err := checkDurable(db.writer); err != nil {
		return err
	}
	// Savepoints note the pages they change: in memory, not in a file, which was
	// three of four writes to the disk. The one connection keeps the setting.
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
	// SQLite opens a read-only file as if nothing were wrong; a write finds out.
	// Nothing uses the number.
	if err := db.writer.Exec("PRAGMA user_version = 0").Error; err != nil {
		return err
	}
	if err := db.rowVersions.installTriggers(db.writer); err != nil {
		return err
	}
	// Whoever served the file before is gone: this process has its lock.
	if err := db.writer.Exec("DELETE FROM replicas").Error; err != nil {
		return err
	}
	if err := db.writer.Exec("INSERT INTO replicas (id, seen_at) VALUES (?, 0)", db.replicaID).Error; err != nil {
		return err
	}
	db.jobs, err = river.NewClient(riversqlite.New(sqlDB), &river.Config{Logger: db.logger})
	if err != nil {
		return fmt.Errorf("open job queue: %w", err)
	}
	db.reader, err = connect(path, readerParams(), readConnections, nil)
	return err
}

// connect opens path with its pragmas in the DSN, so that every connection of
// the pool has them, and tells of what they change to watched, unless it is nil. Each
// handle gets a gorm.Config of its own: gorm.Open keeps the pointer.
func connect(path string, params url.Values, conns int, watched *rowVersions) (*gorm.DB, error) {
	connections, err := newConnector("file:"+(&url.URL{Path: path}).EscapedPath(), params, watched)
	if err != nil {
		return nil, err
	}
	sqlDB := sql.OpenDB(connections)
	sqlDB.SetMaxOpenConns(conns)
	sqlDB.SetMaxIdleConns(conns)
	handle, err := gorm.Open(sqliteDialector(sqlDB), &gorm.Config{
		SkipDefaultTransaction:   true,
		DisableNestedTransaction: true,
		TranslateError:           true,
		Logger:                   gormlogger.Discard,
	})
	if err != nil {
		return nil, errors.Join(err, sqlDB.Close())
	}
	return handle, nil
}

// checkDurable refuses to go on with a connection that would acknowledge what
// is not on the disk, or with a damaged file.
func checkDurable(handle *gorm.DB) error {
	var synchronous int
	var journal string
	if err := handle.Raw("PRAGMA synchronous").Scan(&synchronous).Error; err != nil {
		return err
	}
	if err := handle.Raw("PRAGMA journal_mode").Scan(&journal).Error; err != nil {
		return err
	}
	if synchronous < 2 || journal != "wal" {
		return fmt.Errorf("need synchronous FULL (2) and journal wal, have %d and %s", synchronous, journal)
	}
	return checkIntegrity(handle)
}

// checkIntegrity refuses a file that SQLite finds damaged.
func checkIntegrity(handle *gorm.DB) error {
	var health string
	if err := handle.Raw("PRAGMA quick_check(1)").Scan(&health).Error; err != nil {
		return err
	}
	if health != "ok" {
		return fmt.Errorf("the file is damaged: %s", strings.ReplaceAll(health, "\n", ", "))
	}
	return nil
}

// DataVersion is another number after each commit, from before the changes in it are
// answered: while it stays the same, so does what is acknowledged. It is not
// known of a store that other processes write to as well.
func (db *DB) DataVersion() (version int64, known bool) { return db.dataVersion.Load(), db.pg == nil }

// AbsPath is the whole path of a file, whatever the folder is that the program runs in.
func AbsPath(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

// Location names the engine and where it is, without a password.
func (db *DB) Location() string { return db.location }

// IsShared reports whether other processes may serve the same store.
func (db *DB) IsShared() bool { return db.pg != nil }

// ReplicaID names this opening of the store. The table replicas has it for as long
// as the process is heard of.
func (db *DB) ReplicaID() string { return db.replicaID }

// Snapshot is one committed state of the whole store, to be read only.
type Snapshot = gorm.DB

// Snapshot runs fn on one state, whatever is written meanwhile.
func (db *DB) Snapshot(ctx context.Context, fn func(*Snapshot) error) error {
	if db.pg != nil {
		return runInSnapshot(ctx, db.reader, fn)
	}
	return db.reader.WithContext(ctx).Transaction(fn)
}

// Inspect runs fn on one state of the store at address, which a server may be
// serving. Nothing is changed: the schema is what the server made it, and only one
// that is newer than this program is refused.
func Inspect(ctx context.Context, address string, fn func(*Snapshot) error) error {
	if IsPostgres(address) {
		return inspectPostgres(ctx, address, fn)
	}
	if err := checkPath(address); err != nil {
		return err
	}
	if _, err := os.Stat(address); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	reader, err := connect(address, readerParams(), 1, nil)
	if err != nil {
		return fmt.Errorf("open database %s: %w", address, err)
	}
	return errors.Join(reader.WithContext(ctx).Transaction(requireKnownSchema(sqliteDialect, fn)), closeGorm(reader))
}

func readerParams() url.Values {
	return url.Values{
		"mode": {"ro"}, "_query_only": {"on"}, "_busy_timeout": {"10000"}, "_cache_size": {"-16000"}, "_stmt_cache_size": {"128"},
	}
}

// Ping answers nil when the store can be read, and on PostgreSQL written.
func (db *DB) Ping(ctx context.Context) error {
	if db.pg != nil {
		return db.pg.ping(ctx)
	}
	return db.Read(ctx).Exec("SELECT 1").Error
}

// NewJobClient makes a job client that works the queues of config on this store.
// The caller starts and stops it. Jobs that a dead process left running are
// given back: on SQLite first, as no other process can be at them, on PostgreSQL
// when the process has not been heard of for a while, and so are those that ran
// out of time: the connection broke in which a process was given them.
func (db *DB) NewJobClient(ctx context.Context, config *river.Config) (*river.Client[*sql.Tx], error) {
	config.ID = db.replicaID
	if db.pg != nil {
		db.pg.mu.Lock()
		db.pg.jobTimeout = config.JobTimeout
		db.pg.mu.Unlock()
		return river.NewClient(db.pg.jobDriver, config)
	}
	err := db.Write(ctx, func(tx *Tx) error {
		return tx.Exec("UPDATE river_job SET state = 'available' WHERE state = 'running'").Error
	})
	if err != nil {
		return nil, fmt.Errorf("give back jobs: %w", err)
	}
	sqlDB, err := db.writer.DB()
	if err != nil {
		return nil, err
	}
	return river.NewClient(riversqlite.New(sqlDB), config)
}

// Close ends the writer after the changes that wait, and lets go of the file.
// Write refuses what comes later. Close is called once.
func (db *DB) Close() error {
	close(db.closing)
	if db.pg != nil {
		db.pg.close()
		return nil
	}
	<-db.done
	return errors.Join(closeGorm(db.reader), closeGorm(db.writer), db.lock.release())
}

func closeGorm(handle *gorm.DB) error {
	if handle == nil {
		return nil
	}
	sqlDB, err := handle.DB()
	if err != nil {
		return err
	}
	return sqlDB.Close()
}

// errClosed is why a change is not begun that comes after Close.
var errClosed = errors.New("the database is closed")

// Write runs fn in a transaction and returns nil once what fn did is on the
// disk. When fn returns an error or panics, nothing of it is kept and the error
// is returned as it is. fn may run beside others in one transaction, so ctx
// counts only until fn starts: a change that is cancelled before is not begun.
// fn must not call Write, which would wait behind fn itself until ctx ends, nor
// anything outside the database.
//
// On PostgreSQL it has a transaction of its own, beside others: what fn reads
// and then goes by it must lock, and fn may be run again from the start.
func (db *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	ctx, span := tracing.Start(ctx, "transaction")
	err := db.submitWrite(ctx, fn)
	if span.IsRecording() {
		if err != nil {
			span.SetError(string(models.CodeOf(err)))
		}
		span.End()
	}
	return err
}

// submitWrite is Write, within the span that ctx is about.
func (db *DB) submitWrite(ctx context.Context, fn func(*Tx) error) error {
	select {
	case <-db.closing:
		return notStartedError(errClosed)
	default:
	}
	if db.pg != nil {
		return db.pg.write(ctx, db, fn)
	}
	c := &writeRequest{ctx: ctx, fn: fn, traceParent: tracing.Traceparent(ctx), result: make(chan error, 1)}
	select {
	case db.queue <- c:
	case <-ctx.Done():
		return notStartedError(context.Cause(ctx))
	case <-db.closing:
		return notStartedError(errClosed)
	}
	select {
	case err := <-c.result:
		return err
	case <-ctx.Done():
	case <-db.done:
	}
	if !c.claimed.CompareAndSwap(false, true) { // too late to take it back
		return <-c.result
	}
	return notStartedError(cmp.Or(context.Cause(ctx), errClosed))
}

func notStartedError(why error) error { return fmt.Errorf("the change was not begun: %w", why) }

// writeRequest is one call of Write on its way through the writer goroutine.
type writeRequest struct {
	ctx context.Context //nolint:containedctx // looked at once, before fn starts
	fn  func(*Tx) error
	// decided is set by the one that settles whether fn runs: the writer that
	// begins it, or the caller that takes it back.
	claimed     atomic.Bool
	traceParent string
	result      chan error
	tx          *Tx
	err         error // why it takes no part in the commit
}

// run runs the change unless its caller has taken it back.
func (c *writeRequest) run() error {
	if c.ctx.Err() != nil || !c.claimed.CompareAndSwap(false, true) {
		return notStartedError(context.Cause(c.ctx))
	}
	return callWithRecover(c.fn, c.tx)
}

// callWithRecover calls fn and turns a panic into an error.
func callWithRecover(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if r := recover(); r != nil {
			stack := make([]byte, 8<<10)
			err = fmt.Errorf("panic in a transaction: %v\n%s", r, stack[:runtime.Stack(stack, false)])
		}
	}()
	return fn(tx)
}

// sqlStateInvalidText is what PostgreSQL says of bytes that are no text: a NUL, or no UTF-8.
const sqlStateInvalidText = "22021"

// NotFound turns gorm's missing row into a refusal that names what is missing. An
// id that is no text is of nothing, and PostgreSQL will not look for it.
func NotFound(err error, noun, id string) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if errors.Is(err, gorm.ErrRecordNotFound) || ok && refused.Code == sqlStateInvalidText {
		return models.Errorf(models.NotFound, "there is no %s %q", noun, id)
	}
	return err
}
