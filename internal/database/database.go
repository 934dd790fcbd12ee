package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river"
	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// DB is an open database. It is safe for concurrent use.
type DB struct {
	writer         *gorm.DB // on SQLite the only write connection
	reader         *gorm.DB // on SQLite read-only
	queue          chan *writeRequest
	closing        chan struct{}          // closed by Close
	done           chan struct{}          // closed when the writer goroutine has ended
	jobs           *river.Client[*sql.Tx] // nil on PostgreSQL
	jobNotifier    *jobNotifier
	lock           *fileLock
	file           *storeFile     // nil on PostgreSQL
	pg             *postgresStore // nil on SQLite
	location       string
	replicaID      string
	logger         *slog.Logger
	dataVersion    atomic.Int64
	rowVersions    *rowVersions  // nil on PostgreSQL
	heavyReads     chan struct{} // has an element for each heavy read that runs
	commitObserver atomic.Pointer[func(CommitStats)]
}

// Open opens the database at address and applies pending migrations. The address
// is a postgres:// URL or the path of a SQLite file, which Open creates if it is
// missing. The caller must close the database. Open returns an error if the
// database is unreachable, read-only, damaged, in use by another process (SQLite),
// or newer than this program. It also rejects a SQLite file with several hard links,
// and one that does not fit the write-ahead log next to it.
func Open(ctx context.Context, address string, logger *slog.Logger) (*DB, error) {
	if IsPostgres(address) {
		return openPostgres(ctx, address, logger)
	}
	if err := checkPath(address); err != nil {
		return nil, err
	}
	path, err := ResolvePath(address)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", address, err)
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	file, err := openStoreFile(path, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", address, err), lock.release())
	}
	db, err := openSQLite(ctx, file, lock, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", address, err), file.file.Close(), lock.release())
	}
	return db, nil
}

// DataVersion returns a number that changes with every commit, before the writer
// is answered. If it is unchanged, all acknowledged data is unchanged. known is
// false on PostgreSQL, where other processes write too.
func (db *DB) DataVersion() (version int64, known bool) { return db.dataVersion.Load(), db.pg == nil }

// AbsPath returns the absolute form of path, or path itself if the working
// directory is unknown.
func AbsPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// Location returns the engine and the address of the database, without a password.
func (db *DB) Location() string { return db.location }

// IsShared reports whether several processes can use the database at the same
// time. It is true on PostgreSQL.
func (db *DB) IsShared() bool { return db.pg != nil }

// ReplicaID returns the ID of this process in the table replicas. It is unique for
// each call of Open.
func (db *DB) ReplicaID() string { return db.replicaID }

// Snapshot is a read-only view of one committed state of the database.
type Snapshot = gorm.DB

// Snapshot calls fn with a view that later writes do not change.
func (db *DB) Snapshot(ctx context.Context, fn func(*Snapshot) error) error {
	if db.pg != nil {
		return runInSnapshot(ctx, db.reader, fn)
	}
	return db.reader.WithContext(ctx).Transaction(fn)
}

// Inspect calls fn with a snapshot of the database at address. A server can use
// the database at the same time. Inspect changes nothing and applies no
// migrations. It returns an error if the schema is newer than this program.
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
	reader, err := connect(address, readerParams())
	if err != nil {
		return fmt.Errorf("open database %s: %w", address, err)
	}
	return errors.Join(reader.WithContext(ctx).Transaction(requireKnownSchema(sqliteDialect, fn)), closeGorm(reader))
}

// Ping returns nil if the database can be read and, on PostgreSQL, written. On SQLite
// it returns ErrFileLost if the file was removed or replaced.
func (db *DB) Ping(ctx context.Context) error {
	if db.pg != nil {
		return db.pg.ping(ctx)
	}
	if err := db.file.check(); err != nil {
		return err
	}
	return db.Read(ctx).Exec("SELECT 1").Error
}

// FileLost returns a channel that is closed when the SQLite file was removed or
// replaced. No write succeeds after that. On PostgreSQL it is never closed.
func (db *DB) FileLost() <-chan struct{} {
	if db.pg != nil {
		return nil
	}
	return db.file.lost
}

// Close waits for queued writes and closes the database. Later calls of Write
// return an error. Close must be called only once. After the SQLite file was removed or
// replaced, Close returns ErrFileLost and leaves SQLite's connections open, so that
// SQLite does not touch the files that are at their paths now.
func (db *DB) Close() error {
	close(db.closing)
	if db.pg != nil {
		db.pg.close()
		return nil
	}
	<-db.done
	if err := db.file.check(); err != nil {
		return errors.Join(err, db.lock.release())
	}
	return errors.Join(closeGorm(db.reader), closeGorm(db.writer), db.file.file.Close(), db.lock.release())
}

// sqlStateInvalidText is the PostgreSQL error code for text with a NUL byte or
// invalid UTF-8.
const sqlStateInvalidText = "22021"

// TranslateNotFound converts gorm's record-not-found error to a NOT_FOUND error that names
// the missing row. It does the same for an ID that is invalid text on PostgreSQL.
// Other errors are returned unchanged.
func TranslateNotFound(err error, noun, id string) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if errors.Is(err, gorm.ErrRecordNotFound) || ok && pgErr.Code == sqlStateInvalidText {
		return models.Errorf(models.NotFound, "%s %q not found", noun, id)
	}
	return err
}
