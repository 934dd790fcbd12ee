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
	// poolSize is how many connections serve requests at most, unless the address
	// says pool_max_conns, and leastPool the least that will do.
	poolSize  = 20
	leastPool = 4
	// ownPool is how many more there are for what must not wait behind requests.
	ownPool        = 3
	connectTimeout = 5 * time.Second
	// silence is how long the other side may leave what was sent unacknowledged.
	silence = 10 * time.Second
	// patience is how long Write tries, and tries again while the engine is away,
	// and leastPause and mostPause how long it waits in between.
	patience   = 10 * time.Second
	leastPause = 10 * time.Millisecond
	mostPause  = 500 * time.Millisecond
	// migrationLock is what processes that start at once take turns by.
	migrationLock = 0x6d61726b6574
)

// shared is what a DB has on PostgreSQL, where it is one of several processes.
type shared struct {
	pool     *pgxpool.Pool
	own      *pgxpool.Pool            // for signs of life and the order of events
	sql      *sql.DB                  // on the pool
	jobs     *riverdatabasesql.Driver // for workers
	inserter *river.Client[pgx.Tx]
	stop     context.CancelFunc // ends what goes on in the background
	group    sync.WaitGroup

	mu       sync.Mutex
	onEvents func()
	jobTime  time.Duration // a job that runs for longer does not run any more; 0 when none are worked
}

func openPostgres(ctx context.Context, address string, logger *slog.Logger) (*DB, error) {
	s, handle, err := dial(ctx, address, pgconn.ValidateConnectTargetSessionAttrsReadWrite)
	if err != nil {
		return nil, err
	}
	reader, err := readHandle(s.sql) //nolint:contextcheck // a read has the context of its own statement
	if err != nil {
		s.release()
		return nil, err
	}
	db := &DB{place: place(s.pool.Config()), writer: handle, reader: reader, closing: make(chan struct{}), shared: s, replica: uuid.NewString(), logger: logger}
	if err := s.prepare(ctx, db); err != nil {
		s.release()
		return nil, fmt.Errorf("open database %s: %w", db.place, err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.group.Go(func() { s.listen(background, logger) })
	s.group.Go(func() { s.stayAlive(background, db) })
	return db, nil
}

// dial opens a pool of connections to the first host of the address that the
// check takes, and gorm's handle on it.
func dial(ctx context.Context, address string, check pgconn.ValidateConnectFunc) (*shared, *gorm.DB, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, nil, fmt.Errorf("database: %s", oneLine(err)) // without its password
	}
	if !strings.Contains(address, "pool_max_conns=") {
		config.MaxConns = poolSize
	}
	if config.ConnConfig.ValidateConnect == nil {
		config.ConnConfig.ValidateConnect = check
	}
	config.ConnConfig.ConnectTimeout = cmp.Or(config.ConnConfig.ConnectTimeout, connectTimeout)
	if config.MaxConns < leastPool {
		return nil, nil, fmt.Errorf("database: pool_max_conns must be at least %d", leastPool)
	}
	config.ConnConfig.DialFunc = (&net.Dialer{
		Timeout: connectTimeout, Control: limitSilence,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: silence / 5, Count: 2},
	}).DialContext
	config.AfterConnect = noteLife
	config.ConnConfig.RuntimeParams["application_name"] = cmp.Or(config.ConnConfig.RuntimeParams["application_name"], "agentmarket")
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, fmt.Errorf("open database %s: %w", place(config), err)
	}
	config = config.Copy()
	config.MaxConns, config.MinConns = ownPool, 0
	own, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		pool.Close()
		return nil, nil, fmt.Errorf("open database %s: %w", place(config), err)
	}
	s := &shared{pool: pool, own: own, sql: stdlib.OpenDBFromPool(pool)}
	s.jobs = riverdatabasesql.NewWithPgxListener(s.sql, pool)
	err = pool.Ping(ctx)
	var handle *gorm.DB
	if err == nil {
		handle, err = openHandle(s.sql)
	}
	if err != nil {
		s.release()
		return nil, nil, fmt.Errorf("open database %s: %s", place(config), oneLine(err))
	}
	return s, handle, nil
}

func openHandle(pool *sql.DB) (*gorm.DB, error) {
	return gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{
		SkipDefaultTransaction: true, DisableNestedTransaction: true, TranslateError: true, Logger: gormlogger.Discard,
	})
}

// place names a database without its password.
func place(config *pgxpool.Config) string {
	c := config.ConnConfig
	return fmt.Sprintf("postgres://%s@%s/%s", c.User, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.Database)
}

// oneLine is a message without its line breaks: connecting to several hosts
// fails with a line for each.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// prepare migrates, one process at a time, and opens the job queue.
func (s *shared) prepare(ctx context.Context, db *DB) (err error) {
	conn, err := s.sql.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err = conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return err
	}
	defer func() {
		_, unlocked := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLock)
		err = errors.Join(err, unlocked)
	}()
	if err = refuseForeignTables(ctx, conn); err != nil {
		return err
	}
	if err = s.migrate(ctx, lockPatience); err != nil {
		return err
	}
	if s.inserter, err = river.NewClient(riverpgxv5.New(s.pool), &river.Config{Logger: db.logger}); err != nil {
		return fmt.Errorf("open job queue: %w", err)
	}
	return s.beat(ctx, db.replica)
}

// refuseForeignTables refuses a database with tables of another program.
func refuseForeignTables(ctx context.Context, conn interface {
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

func (s *shared) release() {
	_ = s.sql.Close() // its connections are the pool's
	s.pool.Close()
	s.own.Close()
}

// close ends what goes on in the background, and then the connections.
func (s *shared) close() {
	s.stop()
	s.group.Wait()
	s.release()
}

// ping answers nil when a connection is there that can write.
func (s *shared) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var readOnly string
	if err := s.own.QueryRow(ctx, "SHOW transaction_read_only").Scan(&readOnly); err != nil {
		return err
	}
	if readOnly != "off" {
		return errors.New("the database takes no writes")
	}
	return nil
}

// write runs fn in a transaction of its own. What another transaction got in the
// way of, or an engine that went away before the commit, is tried again.
func (s *shared) write(ctx context.Context, db *DB, fn func(*Tx) error) error {
	trying, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		err := s.attempt(ctx, trying, db, fn)
		if err == nil || !transient(err) {
			return err
		}
		if trying.Err() != nil {
			db.logger.ErrorContext(ctx, "cannot write", slog.Any("error", err))
			db.tell(Commit{Err: err})
			return models.Errorf(models.Unavailable, "the database cannot be written now; nothing was changed; try again")
		}
		timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // it spreads attempts
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return notBegun(context.Cause(ctx))
		case <-db.closing:
			timer.Stop()
			return notBegun(errClosed)
		}
	}
}

// attempt is one transaction. ctx counts until it begins, within from then on.
func (s *shared) attempt(ctx, within context.Context, db *DB, fn func(*Tx) error) (err error) {
	if ctx.Err() != nil {
		return notBegun(context.Cause(ctx))
	}
	p, err := openPipeline(within, s.sql)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer p.close()
	tx := &Tx{DB: p.session(db.writer), pipe: p, trace: tracing.Parent(ctx)}
	err = call(fn, tx)
	if p.err != nil { // fn may have passed over it
		return p.err
	}
	if err != nil {
		return err
	}
	if len(tx.jobs) > 0 {
		if err = p.begun(); err == nil {
			_, err = s.inserter.InsertManyTx(within, p.tx, tx.jobs)
		}
		if err != nil {
			return fmt.Errorf("enqueue jobs: %w", err)
		}
	}
	failpoint.Hit("batch-run")
	begun := time.Now() //nolint:forbidigo // it is about the engine, not about the market
	if err = p.send(true); err != nil {
		if err = s.settle(within, db, p, err); err != nil {
			if models.CodeOf(err) == models.Unavailable {
				db.tell(Commit{Err: err})
			}
			return err
		}
	}
	failpoint.Hit("batch-committed")
	db.tell(Commit{Changes: 1, Took: time.Since(begun)}) //nolint:forbidigo // as above
	db.version.Add(1)
	for _, hook := range tx.hooks {
		hook()
	}
	return nil
}

// refused reports whether the engine has answered that a transaction is not
// committed.
func refused(err error) bool {
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

// transient reports whether the same transaction may succeed when it is run
// again: it lost a race, or the engine was away before it could commit.
func transient(err error) bool {
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
	return lostConnection(err)
}

// number gives cursors to the committed events that have none, in the order of
// their ids, which a transaction that saw another's events continues.
func (s *shared) number(ctx context.Context, notify bool) (some bool, err error) {
	for {
		var numbered int64
		if err := s.own.QueryRow(ctx, "SELECT number_events($1, $2)", numberedAtOnce, notify).Scan(&numbered); err != nil {
			return some, fmt.Errorf("number events: %w", err)
		}
		some = some || numbered > 0
		if numbered < numberedAtOnce {
			return some, nil
		}
	}
}

// snapshot runs fn on one state.
func snapshot(ctx context.Context, handle *gorm.DB, fn func(*State) error) error {
	return handle.WithContext(ctx).Transaction(fn, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
}

// inspectPostgres is Inspect; any host of the address will do, a standby too.
func inspectPostgres(ctx context.Context, address string, fn func(*State) error) error {
	s, handle, err := dial(ctx, address, nil)
	if err != nil {
		return err
	}
	defer s.release()
	var found bool
	if err := handle.WithContext(ctx).Raw("SELECT to_regclass('transfers') IS NOT NULL").Scan(&found).Error; err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("open database %s: there is no market in it", place(s.pool.Config()))
	}
	return snapshot(ctx, handle, knownOnly(postgresDialect, fn))
}

// numbered writes $1, $2 for the question marks of a query.
func numbered(query string) string {
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
