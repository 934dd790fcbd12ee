package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/gorm"
)

// pipeline is a transaction on PostgreSQL whose statements wait for each other's
// company: those that nobody reads the answer of go out with the next one that
// somebody does, or with the commit, and so does the beginning. It is gorm's
// connection as well.
type pipeline struct {
	ctx           context.Context //nolint:containedctx // the transaction's
	conn          *sql.Conn
	pgxConn       *pgx.Conn // the same one
	tx            pgx.Tx    // nil until it has begun
	queued        []queuedStatement
	xid           string // the transaction's number, as soon as the engine has told
	noRows        bool   // the last statement found no row
	resultsUnread bool   // something that the commit returns beside its success was not read
	err           error  // the first that a sent statement had
}

// queuedStatement is one that waits. Its row is read into the targets, if it has some.
type queuedStatement struct {
	query string
	args  []any
	dest  []any
}

// openPipeline takes a connection, on which nothing has begun.
func openPipeline(ctx context.Context, pool *sql.DB) (*pipeline, error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	p := &pipeline{ctx: ctx, conn: conn}
	err = conn.Raw(func(driver any) error {
		under, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("connection is a %T", driver)
		}
		p.pgxConn = under.Conn() // for as long as conn is not closed
		return nil
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return p, nil
}

// session is gorm's on the transaction.
func (p *pipeline) session(handle *gorm.DB) *gorm.DB {
	session := handle.Session(&gorm.Session{NewDB: true, Context: p.ctx})
	session.Statement.ConnPool = p
	return session.Session(&gorm.Session{NewDB: true})
}

// send sends what waits, begins the transaction if need be, and commits it when
// that is asked for.
func (p *pipeline) send(commit bool) error {
	if p.err != nil {
		return p.err
	}
	var batch pgx.Batch
	beginning := p.tx == nil
	if beginning {
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
	p.err = p.receive(results, beginning, commit)
	if err := results.Close(); p.err == nil {
		p.err = err
	}
	if beginning {
		p.tx = results.Tx()
	}
	p.queued = nil
	return p.err
}

// receive reads the answers to what was sent.
func (p *pipeline) receive(results pgx.BatchResults, beginning, commit bool) error {
	if beginning {
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
			break // an answer like any other, to the one who waits for it
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
	if err == nil && tag.String() != "COMMIT" { // a statement failed, and its caller passed over it
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// queryRow sends what waits and a query, and reads the row that it finds.
func (p *pipeline) queryRow(query string, args, into []any) error {
	p.queued = append(p.queued, queuedStatement{query, args, into})
	if err := p.send(false); err != nil {
		return err
	}
	if p.noRows {
		return sql.ErrNoRows
	}
	return nil
}

// close gives the connection back. What was not committed is rolled back.
func (p *pipeline) close() {
	if p.tx != nil && p.pgxConn.PgConn().TxStatus() != 'I' {
		_ = p.tx.Rollback(p.ctx) // a connection that cannot is not used again
	}
	_ = p.conn.Close()
}

// ensureBegun makes sure that the transaction has begun.
func (p *pipeline) ensureBegun() error {
	if p.tx != nil {
		return p.err
	}
	return p.send(false)
}

// flush has everything sent before a statement of gorm.
func (p *pipeline) flush() error {
	if p.tx != nil && len(p.queued) == 0 {
		return p.err
	}
	return p.send(false)
}

// PrepareContext is for gorm.
func (p *pipeline) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.conn.PrepareContext(ctx, query)
}

// ExecContext is for gorm.
func (p *pipeline) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.conn.ExecContext(ctx, query, args...)
}

// QueryContext is for gorm.
func (p *pipeline) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.conn.QueryContext(ctx, query, args...)
}

// QueryRowContext is for gorm. What cannot be sent before it fails the
// transaction.
func (p *pipeline) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	_ = p.flush() // it stays in err
	return p.conn.QueryRowContext(ctx, query, args...)
}

// failUnlessRowChanged writes a statement that must change a row so that the engine itself
// fails it when there is none: the commit may be under way behind it.
func failUnlessRowChanged(query string) string {
	query = dollarPlaceholders(query)
	if strings.HasPrefix(query, "UPDATE ") {
		return "WITH changed AS (" + query + " RETURNING 1) SELECT 1 / COUNT(*) FROM changed"
	}
	return query
}
