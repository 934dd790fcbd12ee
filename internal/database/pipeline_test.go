package database_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestExecOne checks that queued statements are visible to later statements, and that an
// error rolls back the transaction.
func TestExecOne(t *testing.T) {
	t.Parallel()
	const insert = "INSERT INTO agents (id, name, description, capabilities, price_per_task, endpoint_url, system_prompt, owner_email, created_at) VALUES (?, ?, '', '[]', 1, '', '', '', 0)"
	const rename = "UPDATE agents SET name = ? WHERE id = ?"
	count := func(tx *database.Tx) (n int, err error) {
		return n, tx.Raw("SELECT COUNT(*) FROM agents").Scan(&n).Error
	}
	errTest := errors.New("test error")
	for _, row := range []struct {
		name    string
		fn      func(tx *database.Tx) error
		want    []string // IDs of the committed agents
		wantErr string
	}{
		{"no statement", func(*database.Tx) error { return nil }, []string{"old"}, ""},
		{"one statement", func(tx *database.Tx) error { return tx.ExecOne(insert, "new", "n") }, []string{"new", "old"}, ""},
		{"a query after it", func(tx *database.Tx) error {
			var name string
			err := errors.Join(tx.ExecOne(insert, "new", "n"), tx.QueryRow("SELECT name FROM agents WHERE id = ?", []any{"new"}, &name))
			if name != "n" {
				t.Errorf("read %q", name)
			}
			return err
		}, []string{"new", "old"}, ""},
		{"a query without a row", func(tx *database.Tx) error {
			var name string
			if err := tx.QueryRow("SELECT name FROM agents WHERE id = ?", []any{"none"}, &name); !errors.Is(err, sql.ErrNoRows) {
				t.Errorf("a missing row: %v", err)
			}
			return tx.ExecOne(insert, "new", "n")
		}, []string{"new", "old"}, ""},
		{"a gorm query after it", func(tx *database.Tx) error {
			if err := errors.Join(tx.ExecOne(insert, "new", "n"), tx.ExecOne(rename, "m", "new")); err != nil {
				return err
			}
			n, err := count(tx)
			if n != 2 {
				t.Errorf("gorm sees %d agents, want 2", n)
			}
			return err
		}, []string{"new", "old"}, ""},
		{"a returned row", func(tx *database.Tx) error {
			var id, name string
			err := errors.Join(tx.InsertReturning(insert+" RETURNING id", []any{"new", "n"}, &id), tx.QueryRow("SELECT name FROM agents WHERE id = 'old'", nil, &name))
			if id != "new" || name != "old" {
				t.Errorf("got %q and %q", id, name)
			}
			return err
		}, []string{"new", "old"}, ""},
		{"fn fails", func(tx *database.Tx) error { return errors.Join(tx.ExecOne(insert, "new", "n"), errTest) }, []string{"old"}, "test error"},
		{"no row changed", func(tx *database.Tx) error {
			return errors.Join(tx.ExecOne(insert, "new", "n"), tx.ExecOne(rename, "m", "none"))
		}, []string{"old"}, services.ForEngine("changed 0 rows", "division by zero")},
		{"no row changed, then another statement", func(tx *database.Tx) error {
			return errors.Join(tx.ExecOne(rename, "m", "none"), tx.ExecOne(insert, "new", "n"))
		}, []string{"old"}, services.ForEngine("changed 0 rows", "division by zero")},
		{"a duplicate key", func(tx *database.Tx) error {
			return errors.Join(tx.ExecOne(insert, "new", "n"), tx.ExecOne(insert, "new", "n"))
		}, []string{"old"}, services.ForEngine("UNIQUE", "23505")},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			db := openDB(t, services.NewDatabase(t))
			testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "old") }))
			hooked := false
			err := db.Write(t.Context(), func(tx *database.Tx) error {
				tx.OnCommit(func() { hooked = true })
				return row.fn(tx)
			})
			if (err == nil) != (row.wantErr == "") || err != nil && !strings.Contains(err.Error(), row.wantErr) {
				t.Errorf("got %v, want %q", err, row.wantErr)
			}
			if got := agentIDs(t, db); !slices.Equal(got, row.want) || hooked != (err == nil) {
				t.Errorf("committed %v, want %v; hooks ran: %v", got, row.want, hooked)
			}
		})
	}
}

// TestWrite_ignoredStatementError checks that on PostgreSQL a failed statement fails the
// transaction, even if fn ignores the error.
func TestWrite_ignoredStatementError(t *testing.T) {
	t.Parallel()
	for _, failing := range []func(*database.Tx) error{
		func(tx *database.Tx) error { return tx.ExecOne("UPDATE agents SET name = 'm' WHERE id = 'none'") },
		func(tx *database.Tx) error { return tx.Exec("SELECT 1 / 0").Error },
	} {
		db := openDB(t, services.NewPostgresDatabase(t))
		err := db.Write(t.Context(), func(tx *database.Tx) error {
			testutil.Must(t, insertAgent(tx, "first"))
			_ = failing(tx)
			_ = insertAgent(tx, "second")
			return nil
		})
		if err == nil || models.AsError(err).Code == models.Unavailable || len(agentIDs(t, db)) != 0 {
			t.Errorf("got %v, committed %v", err, agentIDs(t, db))
		}
	}
}

// TestIsRolledBack checks that only a confirmation of the server counts as a rollback.
func TestIsRolledBack(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err  error
		want bool
	}{
		{&pgconn.PgError{Severity: "ERROR", Code: "40001"}, true},
		{&pgconn.PgError{Severity: "ERROR", Code: "23505"}, true},
		{fmt.Errorf("commit: %w", pgx.ErrTxCommitRollback), true},
		{&pgconn.PgError{Severity: "ERROR", Code: "40003"}, false},
		{&pgconn.PgError{Severity: "ERROR", Code: "08P01"}, false}, // a pooler
		{&pgconn.PgError{Severity: "FATAL", Code: "57P01"}, false},
		{&pgconn.PgError{Severity: "FATAL", Code: "25006"}, false},
		{&pgconn.PgError{}, false},
		{io.ErrUnexpectedEOF, false},
	} {
		if got := database.IsRolledBack(row.err); got != row.want {
			t.Errorf("%v: rolled back is %v", row.err, got)
		}
	}
}
