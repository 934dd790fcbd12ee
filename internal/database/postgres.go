package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	gormlogger "gorm.io/gorm/logger"

	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

const (
	// defaultPoolSize is how many connections serve requests at most, unless the address
	// says pool_max_conns, and minPoolSize the least that will do.
	defaultPoolSize = 20
	minPoolSize     = 4
	// internalPoolSize is how many more there are for what must not wait behind requests.
	internalPoolSize = 3
	connectTimeout   = 5 * time.Second
	// tcpUserTimeout is how long the other side may leave what was sent unacknowledged.
	tcpUserTimeout = 10 * time.Second
	// writeRetryTimeout is how long Write tries, and tries again while the engine is away,
	// and minBackoff and maxBackoff how long it waits in between.
	writeRetryTimeout = 10 * time.Second
	minBackoff        = 10 * time.Millisecond
	maxBackoff        = 500 * time.Millisecond
	// migrationLockID is what processes that start at once take turns by.
	migrationLockID = 0x6d61726b6574
)

// postgresStore is what a DB has on PostgreSQL, where it is one of several processes.
type postgresStore struct {
	pool         *pgxpool.Pool
	internalPool *pgxpool.Pool            // for signs of life and the order of events
	sqlDB        *sql.DB                  // on the pool
	jobDriver    *riverdatabasesql.Driver // for workers
	jobInserter  *river.Client[pgx.Tx]
	cancel       context.CancelFunc // ends what goes on in the background
	background   sync.WaitGroup

	mu         sync.Mutex
	onEvents   func()
	jobTimeout time.Duration // a job that runs for longer does not run any more; 0 when none are worked
}

func openPostgres(ctx context.Context, address string, logger *slog.Logger) (*DB, error) {
	s, handle, err := dialPostgres(ctx, address, pgconn.ValidateConnectTargetSessionAttrsReadWrite)
	if err != nil {
		return nil, err
	}
	reader, err := openReadHandle(s.sqlDB) //nolint:contextcheck // a read has the context of its own statement
	if err != nil {
		s.closePools()
		return nil, err
	}
	db := &DB{location: redactedAddress(s.pool.Config()), writer: handle, reader: reader, closing: make(chan struct{}), pg: s, replicaID: uuid.NewString(), logger: logger}
	if err := s.prepare(ctx, db); err != nil {
		s.closePools()
		return nil, fmt.Errorf("open database %s: %w", db.location, err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = stop
	s.background.Go(func() { s.listen(background, logger) })
	s.background.Go(func() { s.heartbeatLoop(background, db) })
	return db, nil
}

// dialPostgres opens a pool of connections to the first host of the address that the
// check takes, and gorm's handle on it.
func dialPostgres(ctx context.Context, address string, check pgconn.ValidateConnectFunc) (*postgresStore, *gorm.DB, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, nil, fmt.Errorf("database: %s", singleLine(err)) // without its password
	}
	if !strings.Contains(address, "pool_max_conns=") {
		config.MaxConns = defaultPoolSize
	}
	if config.ConnConfig.ValidateConnect == nil {
		config.ConnConfig.ValidateConnect = check
	}
	config.ConnConfig.ConnectTimeout = cmp.Or(config.ConnConfig.ConnectTimeout, connectTimeout)
	if config.MaxConns < minPoolSize {
		return nil, nil, fmt.Errorf("database: pool_max_conns must be at least %d", minPoolSize)
	}
	config.ConnConfig.DialFunc = (&net.Dialer{
		Timeout: connectTimeout, Control: setTCPUserTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: tcpUserTimeout / 2, Interval: tcpUserTimeout / 5, Count: 2},
	}).DialContext
	config.AfterConnect = storeServerInstance
	config.ConnConfig.RuntimeParams["application_name"] = cmp.Or(config.ConnConfig.RuntimeParams["application_name"], "agentmarket")
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, fmt.Errorf("open database %s: %w", redactedAddress(config), err)
	}
	config = config.Copy()
	config.MaxConns, config.MinConns = internalPoolSize, 0
	own, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		pool.Close()
		return nil, nil, fmt.Errorf("open database %s: %w", redactedAddress(config), err)
	}
	s := &postgresStore{pool: pool, internalPool: own, sqlDB: stdlib.OpenDBFromPool(pool)}
	s.jobDriver = riverdatabasesql.NewWithPgxListener(s.sqlDB, pool)
	err = pool.Ping(ctx)
	var handle *gorm.DB
	if err == nil {
		handle, err = openGorm(s.sqlDB)
	}
	if err != nil {
		s.closePools()
		return nil, nil, fmt.Errorf("open database %s: %s", redactedAddress(config), singleLine(err))
	}
	return s, handle, nil
}

func openGorm(pool *sql.DB) (*gorm.DB, error) {
	return gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{
		SkipDefaultTransaction: true, DisableNestedTransaction: true, TranslateError: true, Logger: gormlogger.Discard,
	})
}

// redactedAddress names a database without its password.
func redactedAddress(config *pgxpool.Config) string {
	c := config.ConnConfig
	return fmt.Sprintf("postgres://%s@%s/%s", c.User, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.Database)
}

// singleLine is a message without its line breaks: connecting to several hosts
// fails with a line for each.
func singleLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// prepare migrates, one process at a time, and opens the job queue.
func (s *postgresStore) prepare(ctx context.Context, db *DB) (err error) {
	conn, err := s.sqlDB.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err = conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", migrationLockID); err != nil {
		return err
	}
	defer func() {
		_, unlocked := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLockID)
		err = errors.Join(err, unlocked)
	}()
	if err = rejectForeignTables(ctx, conn); err != nil {
		return err
	}
	if err = s.migrate(ctx, lockTimeout); err != nil {
		return err
	}
	if s.jobInserter, err = river.NewClient(riverpgxv5.New(s.pool), &river.Config{Logger: db.logger}); err != nil {
		return fmt.Errorf("open job queue: %w", err)
	}
	return s.heartbeat(ctx, db.replicaID)
}

// rejectForeignTables refuses a database with tables of another program.
func rejectForeignTables(ctx context.Context, conn interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
},
) error {
	var foreign string
	err := conn.QueryRowContext(ctx, `SELECT COALESCE(MIN(table_name), '') FROM information_schema.tables WHERE table_schema = current_schema()
		AND to_regclass('transfers') IS NULL AND table_name IN ('agents', 'tasks', 'wallets', 'events', 'webhooks', 'deliveries', 'secrets')`).Scan(&foreign)
	if err != nil {
		return err
	}
	if foreign != "" {
		return fmt.Errorf("it is another program's database: it has a table %q", foreign)
	}
	return nil
}

func (s *postgresStore) closePools() {
	_ = s.sqlDB.Close() // its connections are the pool's
	s.pool.Close()
	s.internalPool.Close()
}

// close ends what goes on in the background, and then the connections.
func (s *postgresStore) close() {
	s.cancel()
	s.background.Wait()
	s.closePools()
}

// ping answers nil when a connection is there that can write.
func (s *postgresStore) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var readOnly string
	if err := s.internalPool.QueryRow(ctx, "SHOW transaction_read_only").Scan(&readOnly); err != nil {
		return err
	}
	if readOnly != "off" {
		return errors.New("the database takes no writes")
	}
	return nil
}

// write runs fn in a transaction of its own. What another transaction got in the
// way of, or an engine that went away before the commit, is tried again.
func (s *postgresStore) write(ctx context.Context, db *DB, fn func(*Tx) error) error {
	trying, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeRetryTimeout)
	defer cancel()
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		err := s.writeOnce(ctx, trying, db, fn)
		if err == nil || !isTransient(err) {
			return err
		}
		if trying.Err() != nil {
			db.logger.ErrorContext(ctx, "cannot write", slog.Any("error", err))
			db.notifyCommit(CommitStats{Err: err})
			return models.Errorf(models.Unavailable, "the database cannot be written now; nothing was changed; try again")
		}
		timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // it spreads attempts
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return notStartedError(context.Cause(ctx))
		case <-db.closing:
			timer.Stop()
			return notStartedError(errClosed)
		}
	}
}

// writeOnce is one transaction. ctx counts until it begins, within from then on.
func (s *postgresStore) writeOnce(ctx, within context.Context, db *DB, fn func(*Tx) error) (err error) {
	if ctx.Err() != nil {
		return notStartedError(context.Cause(ctx))
	}
	p, err := openPipeline(within, s.sqlDB)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer p.close()
	tx := &Tx{DB: p.session(db.writer), pipeline: p, traceParent: tracing.Traceparent(ctx)}
	err = callWithRecover(fn, tx)
	if p.err != nil { // fn may have passed over it
		return p.err
	}
	if err != nil {
		return err
	}
	if len(tx.jobs) > 0 {
		if err = p.ensureBegun(); err == nil {
			_, err = s.jobInserter.InsertManyTx(within, p.tx, tx.jobs)
		}
		if err != nil {
			return fmt.Errorf("enqueue jobs: %w", err)
		}
	}
	failpoint.Hit("batch-run")
	begun := time.Now() //nolint:forbidigo // it is about the engine, not about the market
	if err = p.send(true); err != nil {
		if err = s.resolveLostCommit(within, db, p, err); err != nil {
			if models.CodeOf(err) == models.Unavailable {
				db.notifyCommit(CommitStats{Err: err})
			}
			return err
		}
	}
	failpoint.Hit("batch-committed")
	db.notifyCommit(CommitStats{Changes: 1, Duration: time.Since(begun)}) //nolint:forbidigo // as above
	db.dataVersion.Add(1)
	for _, hook := range tx.commitHooks {
		hook()
	}
	return nil
}

// isRolledBack reports whether the engine has answered that a transaction is not
// committed.
func isRolledBack(err error) bool {
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return true
	}
	failed, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || failed.Severity != "ERROR" || failed.Code == "40003" { // completion unknown
		return false
	}
	switch failed.Code[:min(2, len(failed.Code))] {
	case "", "08", "57", "58", "XX": // connection, operator, system, internal
		return false
	}
	return true
}

// isTransient reports whether the same transaction may succeed when it is run
// again: it lost a race, or the engine was away before it could commit.
func isTransient(err error) bool {
	if _, refused := errors.AsType[*models.Error](err); refused {
		return false
	}
	if errors.Is(err, errAborted) {
		return true
	}
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch failed.Code {
		case "40001", "40P01", // serialization failure, deadlock
			"25006", "53300", // a standby that takes no writes, too many connections
			"57P01", "57P02", "57P03": // shut down, crashed, starting
			return true
		case "0A000": // another replica has added a column; the statement is prepared anew
			return strings.Contains(failed.Message, "cached plan")
		}
		return strings.HasPrefix(failed.Code, "08")
	}
	return isConnectionError(err)
}

// assignCursors gives cursors to the committed events that have none, in the order of
// their ids, which a transaction that saw another's events continues.
func (s *postgresStore) assignCursors(ctx context.Context, notify bool) (some bool, err error) {
	for {
		var numbered int64
		if err := s.internalPool.QueryRow(ctx, "SELECT assign_cursors($1, $2)", cursorBatchSize, notify).Scan(&numbered); err != nil {
			return some, fmt.Errorf("number events: %w", err)
		}
		some = some || numbered > 0
		if numbered < cursorBatchSize {
			return some, nil
		}
	}
}

// runInSnapshot runs fn on one state.
func runInSnapshot(ctx context.Context, handle *gorm.DB, fn func(*Snapshot) error) error {
	return handle.WithContext(ctx).Transaction(fn, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
}

// inspectPostgres is Inspect; any host of the address will do, a standby too.
func inspectPostgres(ctx context.Context, address string, fn func(*Snapshot) error) error {
	s, handle, err := dialPostgres(ctx, address, nil)
	if err != nil {
		return err
	}
	defer s.closePools()
	var found bool
	if err := handle.WithContext(ctx).Raw("SELECT to_regclass('transfers') IS NOT NULL").Scan(&found).Error; err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("open database %s: there is no market in it", redactedAddress(s.pool.Config()))
	}
	return runInSnapshot(ctx, handle, requireKnownSchema(postgresDialect, fn))
}

// dollarPlaceholders writes $1, $2 for the question marks of a query.
func dollarPlaceholders(query string) string {
	var out strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			out.WriteByte('$')
			out.WriteString(strconv.Itoa(n))
		}
		out.WriteString(part)
		n++
	}
	return out.String()
}
