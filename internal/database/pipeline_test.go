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

// TestExecOne: a statement that goes out later than it is run counts all the same:
// what comes after it sees it, and what is wrong with it leaves nothing behind.
func TestExecOne(t *testing.T) {
	t.Parallel()
	const insert = "INSERT INTO agents (id, name, description, capabilities, price_per_task, endpoint_url, system_prompt, owner_email, created_at) VALUES (?, ?, '', '[]', 1, '', '', '', 0)"
	const rename = "UPDATE agents SET name = ? WHERE id = ?"
	count := func(tx *database.Tx) (n int, err error) {
		return n, tx.Raw("SELECT COUNT(*) FROM agents").Scan(&n).Error
	}
	broken := errors.New("broken")
	for _, row := range []struct {
		name string
		fn   func(tx *database.Tx) error
		kept []string
		says string // of the error
	}{
		{"nothing", func(*database.Tx) error { return nil }, []string{"old"}, ""},
		{"alone", func(tx *database.Tx) error { return tx.ExecOne(insert, "new", "n") }, []string{"new", "old"}, ""},
		{"a row is read behind it", func(tx *database.Tx) error {
			var name string
			err := errors.Join(tx.ExecOne(insert, "new", "n"), tx.QueryRow("SELECT name FROM agents WHERE id = ?", []any{"new"}, &name))
			if name != "n" {
				t.Errorf("read %q", name)
			}
			return err
		}, []string{"new", "old"}, ""},
		{"a row that is not there is no fault", func(tx *database.Tx) error {
			var name string
			if err := tx.QueryRow("SELECT name FROM agents WHERE id = ?", []any{"none"}, &name); !errors.Is(err, sql.ErrNoRows) {
				t.Errorf("a missing row: %v", err)
			}
			return tx.ExecOne(insert, "new", "n")
		}, []string{"new", "old"}, ""},
		{"gorm reads behind it", func(tx *database.Tx) error {
			if err := errors.Join(tx.ExecOne(insert, "new", "n"), tx.ExecOne(rename, "m", "new")); err != nil {
				return err
			}
			n, err := count(tx)
			if n != 2 {
				t.Errorf("gorm sees %d agents, want 2", n)
			}
			return err
		}, []string{"new", "old"}, ""},
		{"what it returns is there after the next row", func(tx *database.Tx) error {
			var id, name string
			err := errors.Join(tx.InsertReturning(insert+" RETURNING id", []any{"new", "n"}, &id), tx.QueryRow("SELECT name FROM agents WHERE id = 'old'", nil, &name))
			if id != "new" || name != "old" {
				t.Errorf("got %q and %q", id, name)
			}
			return err
		}, []string{"new", "old"}, ""},
		{"fn fails", func(tx *database.Tx) error { return errors.Join(tx.ExecOne(insert, "new", "n"), broken) }, []string{"old"}, "broken"},
		{"no row", func(tx *database.Tx) error {
			return errors.Join(tx.ExecOne(insert, "new", "n"), tx.ExecOne(rename, "m", "none"))
		}, []string{"old"}, services.ForEngine("changed 0 rows", "division by zero")},
		{"no row, and another statement behind it", func(tx *database.Tx) error {
			return errors.Join(tx.ExecOne(rename, "m", "none"), tx.ExecOne(insert, "new", "n"))
		}, []string{"old"}, services.ForEngine("changed 0 rows", "division by zero")},
		{"twice the same", func(tx *database.Tx) error {
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
			if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
				t.Errorf("got %v, want %q", err, row.says)
			}
			if got := agentIDs(t, db); !slices.Equal(got, row.kept) || hooked != (err == nil) {
				t.Errorf("kept %v, want %v; hooks ran: %v", got, row.kept, hooked)
			}
		})
	}
}

// TestWrite_ignoredStatementError: on PostgreSQL a transaction in which a statement failed is
// over, whether fn says so or not.
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
			t.Errorf("got %v, kept %v", err, agentIDs(t, db))
		}
	}
}

// TestIsRolledBack: a transaction is begun again, or said not to have happened, only
// when the engine itself has said so.
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
			t.Errorf("%v: refused: %v", row.err, got)
		}
	}
}
