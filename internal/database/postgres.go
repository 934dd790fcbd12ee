package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
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
)

const (
	// defaultPoolSize is the maximum number of connections for requests and jobs.
	// pool_max_conns in the address overrides it. minPoolSize is the smallest value
	// allowed.
	defaultPoolSize = 20
	minPoolSize     = 4
	// internalPoolSize is the number of additional connections for work that must not
	// wait behind requests.
	internalPoolSize = 3
	connectTimeout   = 5 * time.Second
	// tcpUserTimeout is how long sent data can stay unacknowledged before the
	// connection is closed.
	tcpUserTimeout = 10 * time.Second
	// migrationLockID is the advisory lock that serializes the start of processes.
	migrationLockID = 0x6d61726b6574
)

// postgresStore is the PostgreSQL part of a DB. Several processes can use the same
// database.
type postgresStore struct {
	pool         *pgxpool.Pool
	internalPool *pgxpool.Pool            // for heartbeats, cursors and notifications
	sqlDB        *sql.DB                  // uses pool
	jobDriver    *riverdatabasesql.Driver // for job workers
	jobInserter  *river.Client[pgx.Tx]
	cancel       context.CancelFunc // stops the background goroutines
	background   sync.WaitGroup

	mu         sync.Mutex
	onEvents   func()
	jobTimeout time.Duration // 0 if this process works no jobs
}

func openPostgres(ctx context.Context, address string, logger *slog.Logger) (*DB, error) {
	s, writer, err := dialPostgres(ctx, address, pgconn.ValidateConnectTargetSessionAttrsReadWrite)
	if err != nil {
		return nil, err
	}
	reader, err := openReadHandle(s.sqlDB) //nolint:contextcheck // each read uses the context of its statement
	if err != nil {
		s.closePools()
		return nil, err
	}
	db := &DB{
		location: redactedAddress(s.pool.Config()), writer: writer, reader: reader, closing: make(chan struct{}), pg: s, logger: logger,
		replicaID: uuid.NewString(), jobNotifier: newJobNotifier(), heavyReads: newHeavyReads(),
	}
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

// dialPostgres opens pools of connections to the first host in address that passes
// validate, and a gorm session on the pool for requests.
func dialPostgres(ctx context.Context, address string, validate pgconn.ValidateConnectFunc) (*postgresStore, *gorm.DB, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, nil, fmt.Errorf("database: %s", singleLine(err)) // pgx redacts the password
	}
	if !strings.Contains(address, "pool_max_conns=") {
		config.MaxConns = defaultPoolSize
	}
	if config.ConnConfig.ValidateConnect == nil {
		config.ConnConfig.ValidateConnect = validate
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
	internalPool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		pool.Close()
		return nil, nil, fmt.Errorf("open database %s: %w", redactedAddress(config), err)
	}
	s := &postgresStore{pool: pool, internalPool: internalPool, sqlDB: stdlib.OpenDBFromPool(pool)}
	s.jobDriver = riverdatabasesql.New(s.sqlDB)
	err = pool.Ping(ctx)
	var db *gorm.DB
	if err == nil {
		db, err = openGorm(s.sqlDB)
	}
	if err != nil {
		s.closePools()
		return nil, nil, fmt.Errorf("open database %s: %s", redactedAddress(config), singleLine(err))
	}
	return s, db, nil
}

func openGorm(pool *sql.DB) (*gorm.DB, error) {
	return gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{
		SkipDefaultTransaction: true, DisableNestedTransaction: true, TranslateError: true, Logger: gormlogger.Discard,
	})
}

// redactedAddress returns the address of a database without its password.
func redactedAddress(config *pgxpool.Config) string {
	c := config.ConnConfig
	return fmt.Sprintf("postgres://%s@%s/%s", c.User, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.Database)
}

// singleLine returns the message of err without line breaks. An error of several
// hosts has one line per host.
func singleLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// prepare applies pending migrations and opens the job queue, in one process at a
// time.
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
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLockID)
		err = errors.Join(err, unlockErr)
	}()
	if err = rejectForeignTables(ctx, conn); err != nil {
		return err
	}
	if err = s.migrate(ctx, lockTimeout); err != nil {
		return err
	}
	if s.jobInserter, err = river.NewClient(postgresInsertDriver{riverpgxv5.New(s.pool)}, &river.Config{Logger: db.logger}); err != nil {
		return fmt.Errorf("open job queue: %w", err)
	}
	return s.heartbeat(ctx, db.replicaID)
}

// rejectForeignTables returns an error if the database holds the tables of another
// program.
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
		return foreignTableError(foreign)
	}
	return nil
}

func (s *postgresStore) closePools() {
	_ = s.sqlDB.Close() // the pool closes its connections
	s.pool.Close()
	s.internalPool.Close()
}

// close stops the background goroutines and closes the connections.
func (s *postgresStore) close() {
	s.cancel()
	s.background.Wait()
	s.closePools()
}

// ping returns nil if the database can be written.
func (s *postgresStore) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var readOnly string
	if err := s.internalPool.QueryRow(ctx, "SHOW transaction_read_only").Scan(&readOnly); err != nil {
		return err
	}
	if readOnly != "off" {
		return errors.New("the database is read-only")
	}
	return nil
}

// runInSnapshot calls fn with a snapshot.
func runInSnapshot(ctx context.Context, db *gorm.DB, fn func(*Snapshot) error) error {
	return db.WithContext(ctx).Transaction(fn, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
}

// inspectPostgres implements [Inspect]. It can use a read-only standby.
func inspectPostgres(ctx context.Context, address string, fn func(*Snapshot) error) error {
	s, db, err := dialPostgres(ctx, address, nil)
	if err != nil {
		return err
	}
	defer s.closePools()
	var found bool
	if err := db.WithContext(ctx).Raw("SELECT to_regclass('transfers') IS NOT NULL").Scan(&found).Error; err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("open database %s: it is not an AgentMarket database", redactedAddress(s.pool.Config()))
	}
	return runInSnapshot(ctx, db, requireKnownSchema(postgresDialect, fn))
}
