package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/gorm"
)

// pipeline is a PostgreSQL transaction that saves round trips. It queues BEGIN and
// the statements without results, and sends them together with the next query or
// the commit. It implements gorm's connection pool.
type pipeline struct {
	ctx           context.Context //nolint:containedctx // the transaction's
	conn          *sql.Conn
	pgxConn       *pgx.Conn // the same one
	tx            pgx.Tx    // nil until it has begun
	queued        []queuedStatement
	xid           string // the transaction ID, empty before BEGIN is sent
	noRows        bool   // the last query found no row
	resultsUnread bool   // results sent with the commit were not read
	err           error  // the first error of a sent statement
}

// queuedStatement is a statement that is not sent yet. Its row is scanned into dest,
// if dest is not nil.
type queuedStatement struct {
	query string
	args  []any
	dest  []any
}

// openPipeline takes a connection from the pool. It does not begin the transaction.
func openPipeline(ctx context.Context, pool *sql.DB) (*pipeline, error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	p := &pipeline{ctx: ctx, conn: conn}
	err = conn.Raw(func(driver any) error {
		stdlibConn, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("connection is a %T", driver)
		}
		p.pgxConn = stdlibConn.Conn() // valid until conn is closed
		return nil
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return p, nil
}

// session returns a gorm session that runs in the transaction.
func (p *pipeline) session(db *gorm.DB) *gorm.DB {
	session := db.Session(&gorm.Session{NewDB: true, Context: p.ctx})
	session.Statement.ConnPool = p
	return session.Session(&gorm.Session{NewDB: true})
}

// send sends the queued statements. It also begins the transaction if necessary, and
// commits it if commit is true.
func (p *pipeline) send(commit bool) error {
	if p.err != nil {
		return p.err
	}
	var batch pgx.Batch
	begin := p.tx == nil
	if begin {
		batch.BeginTx(pgx.TxOptions{})
		batch.Queue("SELECT pg_current_xact_id()::text")
	}
	for _, s := range p.queued {
		batch.Queue(s.query, s.args...)
	}
	if commit {
		batch.Queue("COMMIT")
	}
	results := p.pgxConn.SendBatch(p.ctx, &batch)
	p.err = p.receive(results, begin, commit)
	if err := results.Close(); p.err == nil {
		p.err = err
	}
	if begin {
		p.tx = results.Tx()
	}
	p.queued = nil
	return p.err
}

// receive reads the results of the sent statements.
func (p *pipeline) receive(results pgx.BatchResults, begin, commit bool) error {
	if begin {
		if _, err := results.Exec(); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err := results.QueryRow().Scan(&p.xid); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
	}
	for _, s := range p.queued {
		p.resultsUnread = p.resultsUnread || s.dest != nil
	}
	for i, s := range p.queued {
		var err error
		if s.dest == nil {
			_, err = results.Exec()
		} else {
			err = results.QueryRow().Scan(s.dest...)
		}
		if p.noRows = errors.Is(err, pgx.ErrNoRows) && i == len(p.queued)-1 && !commit; p.noRows {
			break // queryRow returns sql.ErrNoRows
		}
		if err != nil {
			return err
		}
	}
	p.resultsUnread = false
	if !commit {
		return nil
	}
	tag, err := results.Exec()
	if err == nil && tag.String() != "COMMIT" { // fn ignored the error of a statement
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// queryRow sends the queued statements and a query, and scans its first row into
// dest.
func (p *pipeline) queryRow(query string, args, dest []any) error {
	p.queued = append(p.queued, queuedStatement{query, args, dest})
	if err := p.send(false); err != nil {
		return err
	}
	if p.noRows {
		return sql.ErrNoRows
	}
	return nil
}

// close rolls back an uncommitted transaction and returns the connection to the
// pool.
func (p *pipeline) close() {
	if p.tx != nil && p.pgxConn.PgConn().TxStatus() != 'I' {
		_ = p.tx.Rollback(p.ctx) // if this fails, the pool discards the connection
	}
	_ = p.conn.Close()
}

// ensureBegun begins the transaction if necessary.
func (p *pipeline) ensureBegun() error {
	if p.tx != nil {
		return p.err
	}
	return p.send(false)
}

// flush sends the queued statements, so that a statement of gorm runs after them.
func (p *pipeline) flush() error {
	if p.tx != nil && len(p.queued) == 0 {
		return p.err
	}
	return p.send(false)
}

// PrepareContext implements [gorm.ConnPool].
func (p *pipeline) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.conn.PrepareContext(ctx, query)
}

// ExecContext implements [gorm.ConnPool].
func (p *pipeline) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.conn.ExecContext(ctx, query, args...)
}

// QueryContext implements [gorm.ConnPool].
func (p *pipeline) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.conn.QueryContext(ctx, query, args...)
}

// QueryRowContext implements [gorm.ConnPool]. If a queued statement fails, the
// transaction fails.
func (p *pipeline) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	_ = p.flush() // p.err keeps the error
	return p.conn.QueryRowContext(ctx, query, args...)
}

// failUnlessRowChanged rewrites an UPDATE so that PostgreSQL fails it if it changes
// no row. The client cannot check the row count, because the commit may already be
// on its way.
func failUnlessRowChanged(query string) string {
	query = dollarPlaceholders(query)
	if strings.HasPrefix(query, "UPDATE ") {
		return "WITH changed AS (" + query + " RETURNING 1) SELECT 1 / COUNT(*) FROM changed"
	}
	return query
}

// dollarPlaceholders replaces the question marks of a query with $1, $2, and so on.
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
