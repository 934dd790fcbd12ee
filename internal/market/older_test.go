package market_test

import (
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
)

// older is the version from before events were kept for a time.
func older() int64 {
	if services.OnPostgres() {
		return 1 // it has what SQLitePath's second adds
	}
	return 2
}

// older makes a store of the older version with the rows of the market.
func (p *played) older(t *testing.T) (address string) {
	t.Helper()
	folder, dialect := "../database/migrations/sqlite", goose.DialectSQLite3
	if services.OnPostgres() {
		folder, dialect, address = "../database/migrations/postgres", goose.DialectPostgres, services.NewDatabase(t)
	} else {
		address = services.SQLitePath(t) // without the schema
	}
	db := raw(t, address)
	if services.OnPostgres() {
		execute(t, db, "DROP SCHEMA public CASCADE")
		execute(t, db, "CREATE SCHEMA public")
	}
	provider, err := goose.NewProvider(dialect, db, os.DirFS(folder))
	must(t, err)
	_, err = provider.UpTo(t.Context(), older())
	must(t, err)
	triggers := texts(t, db, services.ForEngine("SELECT sql FROM sqlite_master WHERE type = 'trigger'",
		"SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"))
	for _, statement := range texts(t, db, services.DropTriggersQuery()) {
		execute(t, db, statement)
	}
	for _, table := range []string{
		"agents", "agent_capabilities", "api_keys", "tasks", "task_capabilities", "wallets", "transfers", "events",
		"secrets", "webhooks", "deliveries", "attempts", "idempotency_keys",
	} {
		p.fill(t, db, table)
	}
	if services.OnPostgres() {
		triggers = append(triggers, "UPDATE event_head SET seq = (SELECT MAX(seq) FROM events)",
			"SELECT setval(pg_get_serial_sequence('events', 'id'), (SELECT MAX(id) FROM events))",
			"SELECT setval(pg_get_serial_sequence('transfers', 'seq'), (SELECT MAX(seq) FROM transfers))")
	}
	for _, statement := range triggers {
		execute(t, db, statement)
	}
	return address
}

// fill copies the rows of a table, as far as the older one has their columns.
func (p *played) fill(t *testing.T, to *sql.DB, table string) {
	t.Helper()
	columns := texts(t, to, services.ForEngine("SELECT name FROM pragma_table_info('"+table+"')",
		"SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND is_generated = 'NEVER' AND table_name = '"+table+"'"))
	var places []string
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range columns {
		places = append(places, fmt.Sprint("$", i+1))
		into[i] = &values[i]
	}
	insert := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(columns, ", "), strings.Join(places, ", "))
	rows, err := p.DB.Read(t.Context()).Table(table).Select(columns).Order("1").Rows()
	must(t, err)
	defer rows.Close() //nolint:errcheck // read to the end
	for rows.Next() {
		must(t, rows.Scan(into...))
		execute(t, to, insert, values...)
	}
	must(t, rows.Err())
}

// raw opens a store as any program can.
func raw(t *testing.T, address string) *sql.DB {
	t.Helper()
	if !database.IsPostgres(address) {
		db, err := sql.Open(services.SQLiteDriver(), address)
		must(t, err)
		t.Cleanup(func() { must(t, db.Close()) })
		return db
	}
	pool, err := pgxpool.New(t.Context(), address)
	must(t, err)
	t.Cleanup(pool.Close)
	return stdlib.OpenDBFromPool(pool)
}

func execute(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// texts are the rows of a query for one text.
func texts(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	must(t, err)
	defer rows.Close() //nolint:errcheck // read to the end
	for rows.Next() {
		var text string
		must(t, rows.Scan(&text))
		all = append(all, text)
	}
	must(t, rows.Err())
	return all
}
