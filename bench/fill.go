package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
)

//go:embed fill.sql
var fillStatements string

// store is a folder with a database of the product that is filled without the product.
type store struct {
	dir      string
	size     int    // number of agents and of tasks
	postgres string // address of a copy in PostgreSQL, which is measured in place of the file
}

func (s store) file() string { return filepath.Join(s.dir, "agentmarket.db") }

// serverCommand returns the command that serves the store.
func (s store) serverCommand(binary string) commandFunc {
	return func(ctx context.Context, addr, _ string) *exec.Cmd {
		cmd := product(binary)(ctx, addr, s.dir)
		if s.postgres != "" {
			key, _ := os.ReadFile(s.file() + ".key") // the product reports that the key is missing
			cmd.Env = append(cmd.Env, "AGENTMARKET_DATABASE="+s.postgres, "AGENTMARKET_SECRET_KEY="+strings.TrimSpace(string(key)))
		}
		return cmd
	}
}

// copyToPostgres copies the file to PostgreSQL with the product, unless an earlier run did.
func (s store) copyToPostgres(ctx context.Context, binary string) error {
	copied := filepath.Join(s.dir, "copied")
	if text, err := os.ReadFile(copied); err == nil && string(text) == s.postgres {
		return nil
	}
	cmd := product(binary)(ctx, "", s.dir)
	cmd.Args = append(cmd.Args, "copy", "--from", s.file(), "--to", s.postgres)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the store to PostgreSQL: %w: %s", err, text)
	}
	return os.WriteFile(copied, []byte(s.postgres), 0o600)
}

// refill replaces the store by a new one once that is complete.
func (s store) refill(ctx context.Context, binary string) error {
	part := store{dir: s.dir + ".part", size: s.size} // a file
	if err := errors.Join(os.RemoveAll(s.dir), os.RemoveAll(part.dir), os.MkdirAll(part.dir, 0o700)); err != nil {
		return err
	}
	if err := part.create(ctx, binary); err != nil {
		return fmt.Errorf("fill %s: %w", s.file(), err)
	}
	return os.Rename(part.dir, s.dir)
}

// create lets the product create the tables, inserts the rows directly in one transaction
// without triggers, and runs the product's verify on them.
func (s store) create(ctx context.Context, binary string) error {
	empty, err := launch(ctx, s.serverCommand(binary))
	if err != nil {
		return err
	}
	empty.stop()
	// No journal: a file whose creation fails is deleted.
	db, err := sql.Open("sqlite3", "file:"+s.file()+"?_journal_mode=OFF&_synchronous=OFF&_cache_size=-1000000&_temp_store=MEMORY")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if err := errors.Join(s.write(ctx, db), db.Close()); err != nil {
		return err
	}
	return s.verify(ctx, binary)
}

// verify returns the violations that the product finds.
func (s store) verify(ctx context.Context, binary string) error {
	verify := product(binary)(ctx, "", s.dir)
	verify.Args = append(verify.Args, "verify")
	if text, err := verify.CombinedOutput(); err != nil {
		return fmt.Errorf("the filled market does not hold: %w: %s", err, text)
	}
	return nil
}

func (s store) write(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after a commit
	triggers, err := queryStrings(ctx, tx, "SELECT name || char(10) || sql FROM sqlite_master WHERE type = 'trigger'")
	if err != nil {
		return err
	}
	for _, trigger := range triggers {
		name, _, _ := strings.Cut(trigger, "\n")
		if _, err := tx.ExecContext(ctx, "DROP TRIGGER "+name); err != nil {
			return err
		}
	}
	start := time.Now().Add(-time.Duration(s.size) * time.Millisecond).UnixMicro()
	for statement := range strings.SplitSeq(fillStatements, ";\n\n") {
		var args []any
		for name, value := range map[string]any{"n": s.size, "start": start, "known": agents, "grant": startingCredits, "description": loremIpsum()} {
			if strings.Contains(statement, ":"+name) {
				args = append(args, sql.Named(name, value))
			}
		}
		if _, err := tx.ExecContext(ctx, strings.TrimSuffix(strings.TrimSpace(statement), ";"), args...); err != nil {
			return fmt.Errorf("%w: %.200s", err, statement)
		}
	}
	for i := range agents {
		hash := sha256.Sum256([]byte(agentKey(i)))
		if _, err := tx.ExecContext(ctx, "INSERT INTO api_keys (hash, agent_id, created_at) SELECT ?, poster, ? FROM plan WHERE i = ?", hash[:], start, i+1); err != nil {
			return err
		}
	}
	for _, trigger := range triggers {
		_, text, _ := strings.Cut(trigger, "\n")
		if _, err := tx.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// agentKey returns the API key of an agent; only the first agents have known keys.
func agentKey(agent int) string {
	sum := sha256.Sum256([]byte("the key of agent " + strconv.Itoa(agent) + " of the benchmark"))
	return hex.EncodeToString(sum[:])
}

// sampleTaskIDs returns the IDs of count tasks, spread evenly over the store.
func (s store) sampleTaskIDs(ctx context.Context, count int) (ids []string, err error) {
	db, err := sql.Open("sqlite3", "file:"+s.file()+"?mode=ro")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	step := max(1, s.size/count)
	return queryStrings(ctx, tx, "SELECT id FROM tasks WHERE rowid <= ? AND rowid % ? = 0", s.size, step)
}

// queryStrings returns the first column of a query as text.
func queryStrings(ctx context.Context, tx *sql.Tx, query string, args ...any) (values []string, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, rows.Err()
}
