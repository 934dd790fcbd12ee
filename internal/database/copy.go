package database

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	gormlogger "gorm.io/gorm/logger"
)

// copiedTable is a table as Copy goes through it.
type copiedTable struct {
	name    string
	orderBy string // what its rows are ordered by
	// identity is the column whose numbers the target gives from now on.
	identity string
	// standing tables have one row from the start.
	singleRow bool
}

// copiedTables are the tables of a market, each after those it refers to. The
// others are about processes, jobs and the schema itself.
func copiedTables() []copiedTable {
	return []copiedTable{
		{name: "agents", orderBy: "id"},
		{name: "agent_capabilities", orderBy: "capability, agent_id"},
		{name: "api_keys", orderBy: "hash"},
		{name: "tasks", orderBy: "id"},
		{name: "task_capabilities", orderBy: "capability, task_id"},
		{name: "wallets", orderBy: "agent_id"},
		{name: "transfers", orderBy: "seq", identity: "seq"},
		{name: "ledger_sums", orderBy: "one", singleRow: true},
		{name: "events", orderBy: "seq", identity: "id"},
		{name: "event_horizon", orderBy: "one", singleRow: true},
		{name: "secrets", orderBy: "agent_id"},
		{name: "webhooks", orderBy: "agent_id"},
		{name: "deliveries", orderBy: "id"},
		{name: "attempts", orderBy: "delivery_id, number"},
		{name: "idempotency_keys", orderBy: "scope, key"},
		{name: "registrants", orderBy: "network"},
		{name: "audit_entries", orderBy: "seq", identity: "seq"},
	}
}

// jobBatchSize is how many jobs are copied with one statement.
const jobBatchSize = 1000

// copyProgressRows is after how many rows it is told how far a table has got.
const copyProgressRows = 5000

// CopyProgress is how many rows of a table Copy has written, of how many. The table is done
// when these are the same.
type CopyProgress struct {
	Table       string
	Rows, Total int64
}

// Copy fills the empty PostgreSQL database at to with the market in the SQLite
// file at from, which nobody may be serving: every row as it is, cursors and all,
// and the jobs that are still to be done. check is run on both states, and the
// rows that arrived are compared with those that were sent, before anything is
// committed; whatever fails leaves the target empty. tell hears of each table once it
// is done, and of large ones meanwhile.
func Copy(ctx context.Context, from, to string, logger *slog.Logger, tell func(CopyProgress), check func(*Snapshot) error) (err error) {
	if IsPostgres(from) || !IsPostgres(to) {
		return errors.New("copy goes from a SQLite file to a postgres:// address")
	}
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("open database: %w", err) // Open would make it
	}
	if _, err := ReadSchemaStatus(ctx, to); err != nil { // Open writes to the source
		return err
	}
	source, err := Open(ctx, from, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := Open(ctx, to, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	return source.Snapshot(ctx, func(state *Snapshot) error {
		if err := checkTablesKnown(state); err != nil {
			return fmt.Errorf("%s: %w", source.location, err)
		}
		if err := check(state); err != nil {
			return fmt.Errorf("%s: %w", source.location, err)
		}
		if err := copyInto(ctx, source, target, state, tell, check); err != nil {
			return fmt.Errorf("%s: %w", target.location, err)
		}
		return nil
	})
}

// checkTablesKnown refuses a source with a table that would be left behind.
func checkTablesKnown(state *Snapshot) error {
	var tables []string
	err := state.Raw(`SELECT name FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'river_%'
		AND name NOT IN ('goose_db_version', 'replicas')`).Scan(&tables).Error
	if err != nil {
		return err
	}
	for _, name := range tables {
		if !slices.ContainsFunc(copiedTables(), func(t copiedTable) bool { return t.name == name }) {
			return fmt.Errorf("there is no telling where its table %q belongs", name)
		}
	}
	return nil
}

// copyInto writes the target in one transaction.
func copyInto(ctx context.Context, source, target *DB, state *Snapshot, tell func(CopyProgress), check func(*Snapshot) error) (err error) {
	conn, err := target.pg.sqlDB.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after the commit there is nothing to roll back
	session, err := gorm.Open(postgres.New(postgres.Config{Conn: tx}), &gorm.Config{SkipDefaultTransaction: true, Logger: gormlogger.Discard})
	if err != nil {
		return err
	}
	f := tableCopier{ctx: ctx, conn: conn, from: state, to: session.WithContext(ctx)}
	if err := f.lockEmptyTarget(target.replicaID); err != nil {
		return err
	}
	for _, table := range copiedTables() {
		rows, err := f.copyTable(table, tell)
		if err != nil {
			return fmt.Errorf("copy %s: %w", table.name, err)
		}
		tell(CopyProgress{table.name, rows, rows})
	}
	jobs, err := copyJobs(ctx, source, target, tx)
	if err != nil {
		return fmt.Errorf("copy jobs: %w", err)
	}
	tell(CopyProgress{"jobs", jobs, jobs})
	if err := f.restoreSequences(); err != nil {
		return err
	}
	if err := check(f.to); err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	return tx.Commit()
}

// tableCopier is a target on its way to be a copy.
type tableCopier struct {
	ctx  context.Context //nolint:containedctx // it lives as long as the copying
	conn *sql.Conn       // the transaction's
	from *Snapshot
	to   *gorm.DB
}

// lockEmptyTarget locks the target, refuses one that has something in it, and lets rows
// in as they are: the triggers, which guard how a market moves, are run again
// from finish on. Constraints and references are kept to throughout.
func (f *tableCopier) lockEmptyTarget(replica string) error {
	var names, exists []string
	for _, table := range copiedTables() {
		names = append(names, table.name)
		if !table.singleRow {
			exists = append(exists, "EXISTS (SELECT 1 FROM "+table.name+")")
		}
	}
	if err := f.to.Exec("LOCK TABLE " + strings.Join(names, ", ") + " IN ACCESS EXCLUSIVE MODE").Error; err != nil {
		return err
	}
	var others int64
	if err := f.to.Raw("SELECT COUNT(*) FROM replicas WHERE id <> ?", replica).Scan(&others).Error; err != nil {
		return err
	}
	if others > 0 {
		return fmt.Errorf("%d servers are at it: stop them, and wait 15 seconds for one that was killed", others)
	}
	var used bool
	if err := f.to.Raw("SELECT EXISTS (SELECT 1 FROM river_job) OR " + strings.Join(exists, " OR ")).Scan(&used).Error; err != nil {
		return err
	}
	if used {
		return errors.New("it is not empty: copy into a new database")
	}
	return f.setTriggers("DISABLE")
}

// setTriggers has those that the migrations made run, or not.
func (f *tableCopier) setTriggers(action string) error {
	for _, table := range copiedTables() {
		if err := f.to.Exec("ALTER TABLE " + table.name + " " + action + " TRIGGER USER").Error; err != nil {
			return err
		}
	}
	return nil
}

// copyTable copies a table and reads it back.
func (f *tableCopier) copyTable(table copiedTable, tell func(CopyProgress)) (int64, error) {
	var all int64
	if err := f.from.Raw("SELECT COUNT(*) FROM " + table.name).Scan(&all).Error; err != nil {
		return 0, err
	}
	var columns []string
	err := f.to.Raw(`SELECT column_name FROM information_schema.columns
		WHERE table_schema = current_schema() AND table_name = ? AND is_generated = 'NEVER' ORDER BY ordinal_position`, table.name).Scan(&columns).Error
	if err != nil {
		return 0, err
	}
	if table.singleRow {
		if err := f.to.Exec("DELETE FROM " + table.name).Error; err != nil {
			return 0, err
		}
	}
	sent, err := openHashedRows(f.from, table, columns)
	if err != nil {
		return 0, err
	}
	defer sent.rows.Close() //nolint:errcheck // read to the end, or failed already
	sent.onRow = func(rows int64) {
		if rows%copyProgressRows == 0 && rows < all {
			tell(CopyProgress{table.name, rows, all})
		}
	}
	var written int64
	err = f.conn.Raw(func(driver any) error {
		conn, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("connection is a %T", driver)
		}
		written, err = conn.Conn().CopyFrom(f.ctx, pgx.Identifier{table.name}, columns, sent)
		return err
	})
	if err != nil {
		return 0, err
	}
	arrived, err := openHashedRows(f.to, table, columns)
	if err != nil {
		return 0, err
	}
	defer arrived.rows.Close() //nolint:errcheck // read to the end, or failed already
	for arrived.Next() {
		if _, err := arrived.Values(); err != nil {
			return 0, err
		}
	}
	if err := arrived.Err(); err != nil {
		return 0, err
	}
	if written != sent.count || arrived.count != sent.count || string(arrived.digest.Sum(nil)) != string(sent.digest.Sum(nil)) {
		return 0, fmt.Errorf("%d rows were sent and %d arrived, and they are not the same", sent.count, arrived.count)
	}
	return written, nil
}

// restoreSequences goes on where the source's numbers ended.
func (f *tableCopier) restoreSequences() error {
	if err := f.setTriggers("ENABLE"); err != nil {
		return err
	}
	for _, table := range copiedTables() {
		if table.identity == "" {
			continue
		}
		var last int64
		if err := f.from.Raw("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = ?", table.name).Scan(&last).Error; err != nil {
			return err
		}
		if err := f.to.Exec("SELECT setval(pg_get_serial_sequence(?, ?), ?, false)", table.name, table.identity, last+1).Error; err != nil {
			return err
		}
		if table.name != "events" {
			continue
		}
		if err := f.to.Exec("UPDATE event_head SET seq = ?", last).Error; err != nil {
			return err
		}
	}
	return nil
}

// hashedRows is a query's result as pgx.CopyFrom reads it, and its digest.
type hashedRows struct {
	rows   *sql.Rows
	values []any
	dest   []any
	count  int64
	onRow  func(count int64)
	digest hash.Hash
}

func openHashedRows(state *Snapshot, table copiedTable, columns []string) (*hashedRows, error) {
	found, err := state.Raw("SELECT " + strings.Join(columns, ", ") + " FROM " + table.name + " ORDER BY " + table.orderBy).Rows() //nolint:rowserrcheck // see Err
	if err != nil {
		return nil, err
	}
	r := &hashedRows{rows: found, values: make([]any, len(columns)), dest: make([]any, len(columns)), digest: sha256.New(), onRow: func(int64) {}}
	for i := range r.values {
		r.dest[i] = &r.values[i]
	}
	return r, nil
}

// Next goes to the next row, if there is one.
func (r *hashedRows) Next() bool { return r.rows.Next() }

// Err is what ended the rows early.
func (r *hashedRows) Err() error { return r.rows.Err() }

// Values reads the row and adds it to the digest.
func (r *hashedRows) Values() ([]any, error) {
	if err := r.rows.Scan(r.dest...); err != nil {
		return nil, err
	}
	r.count++
	r.onRow(r.count)
	for _, value := range r.values {
		if _, err := fmt.Fprintf(r.digest, "%T %q\n", value, fmt.Sprint(value)); err != nil {
			return nil, err
		}
	}
	return r.values, nil
}

// copyJobs puts the jobs that are not done in the target's queue.
func copyJobs(ctx context.Context, source, target *DB, tx *sql.Tx) (int64, error) {
	list := river.NewJobListParams().First(jobBatchSize).OrderBy(river.JobListOrderByID, river.SortOrderAsc).States(rivertype.JobStateAvailable,
		rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled)
	queue, err := river.NewClient(target.pg.jobDriver, &river.Config{Logger: target.logger})
	if err != nil {
		return 0, err
	}
	for copied := int64(0); ; {
		found, err := source.jobs.JobList(ctx, list)
		if err != nil || len(found.Jobs) == 0 {
			return copied, err
		}
		jobs := make([]river.InsertManyParams, len(found.Jobs))
		for i, job := range found.Jobs {
			jobs[i] = river.InsertManyParams{Args: copiedJob{job.Kind, job.EncodedArgs}, InsertOpts: &river.InsertOpts{
				MaxAttempts: job.MaxAttempts, Metadata: job.Metadata, Priority: job.Priority, Queue: job.Queue, ScheduledAt: job.ScheduledAt, Tags: job.Tags,
			}}
		}
		if _, err := queue.InsertManyFastTx(ctx, tx, jobs); err != nil {
			return copied, err
		}
		copied += int64(len(jobs))
		list = list.After(found.LastCursor)
	}
}

// copiedJob is a job whose arguments nobody looks into.
type copiedJob struct {
	kind string
	args []byte
}

// Kind is which worker does it.
func (j copiedJob) Kind() string { return j.kind }

// MarshalJSON is the arguments as they were.
func (j copiedJob) MarshalJSON() ([]byte, error) { return json.RawMessage(j.args), nil }
