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

// copiedTable describes how Copy copies a table.
type copiedTable struct {
	name      string
	orderBy   string // columns that identify a row
	identity  string // identity column of the target; empty if there is none
	singleRow bool   // the migration has inserted the only row
}

// copiedTables returns the tables with the data of a marketplace, each after the
// tables it references. The other tables describe processes, jobs and the schema.
func copiedTables() []copiedTable {
	return []copiedTable{
		{name: "agents", orderBy: "id"},
		{name: "agent_capabilities", orderBy: "capability, agent_id"},
		{name: "agent_words", orderBy: "word, agent_id"},
		{name: "api_keys", orderBy: "hash"},
		{name: "tasks", orderBy: "id"},
		{name: "task_capabilities", orderBy: "capability, task_id"},
		{name: "task_words", orderBy: "word, task_id"},
		{name: "wallets", orderBy: "agent_id"},
		{name: "transfers", orderBy: "seq", identity: "seq"},
		{name: "ledger_sums", orderBy: "one", singleRow: true},
		{name: "events", orderBy: "seq", identity: "id"},
		{name: "event_horizon", orderBy: "one", singleRow: true},
		{name: "secret_keys", orderBy: "id"},
		{name: "secrets", orderBy: "agent_id"},
		{name: "previous_secrets", orderBy: "agent_id, id"},
		{name: "webhooks", orderBy: "agent_id"},
		{name: "deliveries", orderBy: "id"},
		{name: "attempts", orderBy: "delivery_id, number"},
		{name: "idempotency_keys", orderBy: "scope, key"},
		{name: "registrants", orderBy: "network"},
		{name: "audit_entries", orderBy: "seq", identity: "seq"},
	}
}

// jobBatchSize is the number of jobs copied with one statement.
const jobBatchSize = 1000

// copyProgressRows is the number of rows between two progress reports of a table.
const copyProgressRows = 5000

// CopyProgress is the number of rows of a table that Copy has written, and their
// total. The table is complete when both are equal.
type CopyProgress struct {
	Table       string
	Rows, Total int64
}

// Copy copies the SQLite file at from to the empty PostgreSQL database at to. No
// server may use either of them. It copies all rows unchanged, with their cursors,
// and the unfinished jobs. Before it commits, it runs check on the source and on the
// target, and compares the rows of both. If it fails, the target stays empty. It
// calls progress after each table, and several times for a large table.
func Copy(ctx context.Context, from, to string, logger *slog.Logger, progress func(CopyProgress), check func(*Snapshot) error) (err error) {
	if IsPostgres(from) || !IsPostgres(to) {
		return errors.New("can only copy a SQLite file to a postgres:// address")
	}
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("open database: %w", err) // Open would create the file
	}
	if _, err := ReadSchemaStatus(ctx, to); err != nil { // checked first, because Open writes to the source
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
	return source.Snapshot(ctx, func(snapshot *Snapshot) error {
		if err := checkTablesKnown(snapshot); err != nil {
			return fmt.Errorf("%s: %w", source.location, err)
		}
		if err := check(snapshot); err != nil {
			return fmt.Errorf("%s: %w", source.location, err)
		}
		if err := copyInto(ctx, source, target, snapshot, progress, check); err != nil {
			return fmt.Errorf("%s: %w", target.location, err)
		}
		return nil
	})
}

// checkTablesKnown returns an error if the source has a table that Copy does not
// copy.
func checkTablesKnown(snapshot *Snapshot) error {
	var tables []string
	err := snapshot.Raw(`SELECT name FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'river_%'
		AND name NOT IN ('goose_db_version', 'replicas')`).Scan(&tables).Error
	if err != nil {
		return err
	}
	for _, name := range tables {
		if !slices.ContainsFunc(copiedTables(), func(t copiedTable) bool { return t.name == name }) {
			return fmt.Errorf("unknown table %q", name)
		}
	}
	return nil
}

// copyInto writes the target in one transaction.
func copyInto(ctx context.Context, source, target *DB, snapshot *Snapshot, progress func(CopyProgress), check func(*Snapshot) error) (err error) {
	conn, err := target.pg.sqlDB.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after the commit
	session, err := gorm.Open(postgres.New(postgres.Config{Conn: tx}), &gorm.Config{SkipDefaultTransaction: true, Logger: gormlogger.Discard})
	if err != nil {
		return err
	}
	c := tableCopier{ctx: ctx, conn: conn, from: snapshot, to: session.WithContext(ctx)}
	if err := c.lockEmptyTarget(target.replicaID); err != nil {
		return err
	}
	for _, table := range copiedTables() {
		rows, err := c.copyTable(table, progress)
		if err != nil {
			return fmt.Errorf("copy %s: %w", table.name, err)
		}
		progress(CopyProgress{table.name, rows, rows})
	}
	jobs, err := copyJobs(ctx, source, target, tx)
	if err != nil {
		return fmt.Errorf("copy jobs: %w", err)
	}
	progress(CopyProgress{"jobs", jobs, jobs})
	if err := c.restoreSequences(); err != nil {
		return err
	}
	if err := c.to.Exec("ANALYZE").Error; err != nil { // without statistics the check of a large market takes hours
		return err
	}
	if err := check(c.to); err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	return tx.Commit()
}

// tableCopier copies tables from a SQLite snapshot to a PostgreSQL transaction.
type tableCopier struct {
	ctx  context.Context //nolint:containedctx // it lives as long as the copy
	conn *sql.Conn       // of the transaction
	from *Snapshot
	to   *gorm.DB
}

// lockEmptyTarget locks the tables of the target, returns an error if they are not
// empty or a server uses them, and disables their triggers, which allow only
// regular changes. Constraints and foreign keys stay active. restoreSequences
// enables the triggers again.
func (c *tableCopier) lockEmptyTarget(replica string) error {
	var names, exists []string
	for _, table := range copiedTables() {
		names = append(names, table.name)
		if !table.singleRow {
			exists = append(exists, "EXISTS (SELECT 1 FROM "+table.name+")")
		}
	}
	if err := c.to.Exec("LOCK TABLE " + strings.Join(names, ", ") + " IN ACCESS EXCLUSIVE MODE").Error; err != nil {
		return err
	}
	var others int64
	if err := c.to.Raw("SELECT COUNT(*) FROM replicas WHERE id <> ?", replica).Scan(&others).Error; err != nil {
		return err
	}
	if others > 0 {
		return fmt.Errorf("%d servers are using it: stop them; a killed server counts for 15 more seconds", others)
	}
	var used bool
	if err := c.to.Raw("SELECT EXISTS (SELECT 1 FROM river_job) OR " + strings.Join(exists, " OR ")).Scan(&used).Error; err != nil {
		return err
	}
	if used {
		return errors.New("the database is not empty: copy to a new database")
	}
	return c.setTriggers("DISABLE")
}

// setTriggers enables or disables the triggers of all copied tables.
func (c *tableCopier) setTriggers(action string) error {
	for _, table := range copiedTables() {
		if err := c.to.Exec("ALTER TABLE " + table.name + " " + action + " TRIGGER USER").Error; err != nil {
			return err
		}
	}
	return nil
}

// copyTable copies a table and compares the target with the source. It returns the
// number of rows.
func (c *tableCopier) copyTable(table copiedTable, progress func(CopyProgress)) (int64, error) {
	var total int64
	if err := c.from.Raw("SELECT COUNT(*) FROM " + table.name).Scan(&total).Error; err != nil {
		return 0, err
	}
	var columns []string
	err := c.to.Raw(`SELECT column_name FROM information_schema.columns
		WHERE table_schema = current_schema() AND table_name = ? AND is_generated = 'NEVER' ORDER BY ordinal_position`, table.name).Scan(&columns).Error
	if err != nil {
		return 0, err
	}
	if table.singleRow {
		if err := c.to.Exec("DELETE FROM " + table.name).Error; err != nil {
			return 0, err
		}
	}
	source, err := openHashedRows(c.from, table, columns)
	if err != nil {
		return 0, err
	}
	defer source.rows.Close() //nolint:errcheck // already read to the end or failed
	source.onRow = func(rows int64) {
		if rows%copyProgressRows == 0 && rows < total {
			progress(CopyProgress{table.name, rows, total})
		}
	}
	var written int64
	err = c.conn.Raw(func(driver any) error {
		conn, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("connection is a %T", driver)
		}
		written, err = conn.Conn().CopyFrom(c.ctx, pgx.Identifier{table.name}, columns, source)
		return err
	})
	if err != nil {
		return 0, err
	}
	target, err := openHashedRows(c.to, table, columns)
	if err != nil {
		return 0, err
	}
	defer target.rows.Close() //nolint:errcheck // already read to the end or failed
	for target.Next() {
		if _, err := target.Values(); err != nil {
			return 0, err
		}
	}
	if err := target.Err(); err != nil {
		return 0, err
	}
	if written != source.count || target.count != source.count || string(target.digest.Sum(nil)) != string(source.digest.Sum(nil)) {
		return 0, fmt.Errorf("the target differs from the source: sent %d rows, found %d", source.count, target.count)
	}
	return written, nil
}

// restoreSequences enables the triggers and continues the identity columns and the
// event cursor after the last values of the source.
func (c *tableCopier) restoreSequences() error {
	if err := c.setTriggers("ENABLE"); err != nil {
		return err
	}
	for _, table := range copiedTables() {
		if table.identity == "" {
			continue
		}
		var last int64
		if err := c.from.Raw("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = ?", table.name).Scan(&last).Error; err != nil {
			return err
		}
		if err := c.to.Exec("SELECT setval(pg_get_serial_sequence(?, ?), ?, false)", table.name, table.identity, last+1).Error; err != nil {
			return err
		}
		if table.name != "events" {
			continue
		}
		if err := c.to.Exec("UPDATE event_head SET seq = ?", last).Error; err != nil {
			return err
		}
	}
	return nil
}

// hashedRows is the result of a query, as a source for pgx.CopyFrom, with a digest of
// the rows read.
type hashedRows struct {
	rows   *sql.Rows
	values []any
	dest   []any
	count  int64
	onRow  func(count int64)
	digest hash.Hash
}

func openHashedRows(snapshot *Snapshot, table copiedTable, columns []string) (*hashedRows, error) {
	rows, err := snapshot.Raw("SELECT " + strings.Join(columns, ", ") + " FROM " + table.name + " ORDER BY " + table.orderBy).Rows() //nolint:rowserrcheck // Err checks it
	if err != nil {
		return nil, err
	}
	r := &hashedRows{rows: rows, values: make([]any, len(columns)), dest: make([]any, len(columns)), digest: sha256.New(), onRow: func(int64) {}}
	for i := range r.values {
		r.dest[i] = &r.values[i]
	}
	return r, nil
}

// Next implements [pgx.CopyFromSource].
func (r *hashedRows) Next() bool { return r.rows.Next() }

// Err implements [pgx.CopyFromSource].
func (r *hashedRows) Err() error { return r.rows.Err() }

// Values implements [pgx.CopyFromSource]. It adds the row to the digest.
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

// copyJobs inserts the unfinished jobs into the queue of the target and returns their
// number.
func copyJobs(ctx context.Context, source, target *DB, tx *sql.Tx) (int64, error) {
	list := river.NewJobListParams().First(jobBatchSize).OrderBy(river.JobListOrderByID, river.SortOrderAsc).States(rivertype.JobStateAvailable,
		rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled)
	queue, err := river.NewClient(target.pg.jobDriver, &river.Config{Logger: target.logger})
	if err != nil {
		return 0, err
	}
	for copied := int64(0); ; {
		page, err := source.jobs.JobList(ctx, list)
		if err != nil || len(page.Jobs) == 0 {
			return copied, err
		}
		jobs := make([]river.InsertManyParams, len(page.Jobs))
		for i, job := range page.Jobs {
			jobs[i] = river.InsertManyParams{Args: copiedJob{job.Kind, job.EncodedArgs}, InsertOpts: &river.InsertOpts{
				MaxAttempts: job.MaxAttempts, Metadata: job.Metadata, Priority: job.Priority, Queue: job.Queue, ScheduledAt: job.ScheduledAt, Tags: job.Tags,
			}}
		}
		if _, err := queue.InsertManyFastTx(ctx, tx, jobs); err != nil {
			return copied, err
		}
		copied += int64(len(jobs))
		list = list.After(page.LastCursor)
	}
}

// copiedJob is a job with encoded arguments.
type copiedJob struct {
	kind string
	args []byte
}

// Kind implements [river.JobArgs].
func (j copiedJob) Kind() string { return j.kind }

// MarshalJSON returns the encoded arguments.
func (j copiedJob) MarshalJSON() ([]byte, error) { return json.RawMessage(j.args), nil }
