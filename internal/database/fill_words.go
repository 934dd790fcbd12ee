package database

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"agentmarket.space/server/internal/words"
)

// wordsBatchSize is the number of rows that one transaction of [fillWords] indexes.
const wordsBatchSize = 500

// wordsTable is a table with a text to index.
type wordsTable struct {
	name, title, description string
	capabilities             string // table of its capabilities
	id                       string // the column of capabilities with the id of the row
}

// wordsTables returns the tables with a column words.
func wordsTables() []wordsTable {
	return []wordsTable{
		{"agents", "name", "description", "agent_capabilities", "agent_id"},
		{"tasks", "title", "description", "task_capabilities", "task_id"},
	}
}

// EncodeWords returns the value of the column words for a row with these texts.
func EncodeWords(texts ...string) string {
	encoded, err := json.Marshal(words.Of(texts...))
	if err != nil {
		panic(err) // strings can always be encoded
	}
	return string(encoded)
}

// fillWords indexes the rows without words, which an older version of this program wrote,
// and normalises their capabilities. It commits after each batch, so it continues after a
// crash. Several processes can run it at the same time, and others can use the database.
func fillWords(ctx context.Context, db *sql.DB, d dialect) error {
	for _, table := range wordsTables() {
		for {
			indexed, err := fillBatch(ctx, db, d, table)
			if err != nil && d.folder == postgresDialect.folder && isTransient(err) && ctx.Err() == nil {
				continue // it conflicted with another process
			}
			if err != nil {
				return fmt.Errorf("index the words of %s: %w", table.name, err)
			}
			if indexed < wordsBatchSize {
				break
			}
		}
	}
	return nil
}

// unindexedRow is a row without words.
type unindexedRow struct{ id, title, description, capabilities string }

// fillBatch indexes the first rows without words and returns their number.
func fillBatch(ctx context.Context, db *sql.DB, d dialect, table wordsTable) (n int, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ignoreTxDone(tx.Rollback())) }()
	query := fmt.Sprintf("SELECT id, %s, %s, capabilities FROM %s WHERE words IS NULL ORDER BY id LIMIT %d", table.title, table.description, table.name, wordsBatchSize)
	if d.folder == postgresDialect.folder {
		query += " FOR NO KEY UPDATE"
	}
	page, err := readUnindexed(ctx, tx, query)
	if err != nil {
		return 0, err
	}
	for _, row := range page {
		if err := table.index(ctx, tx, row); err != nil {
			return 0, err
		}
	}
	return len(page), tx.Commit()
}

func readUnindexed(ctx context.Context, tx *sql.Tx, query string) (page []unindexedRow, err error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // read to the end or failed
	for rows.Next() {
		var row unindexedRow
		if err := rows.Scan(&row.id, &row.title, &row.description, &row.capabilities); err != nil {
			return nil, err
		}
		page = append(page, row)
	}
	return page, rows.Err()
}

// index writes the words and the normalised capabilities of a row. Triggers add its rows
// to the index.
func (t wordsTable) index(ctx context.Context, tx *sql.Tx, row unindexedRow) error {
	var before []string
	if err := json.Unmarshal([]byte(row.capabilities), &before); err != nil {
		return fmt.Errorf("read the capabilities of %s: %w", row.id, err)
	}
	after := []string{}
	for _, capability := range before {
		if capability = words.Fold(capability); !slices.Contains(after, capability) {
			after = append(after, capability)
		}
	}
	if slices.Equal(before, after) {
		_, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET words = $1 WHERE id = $2", t.name), EncodeWords(row.title, row.description), row.id)
		return err
	}
	encoded, err := json.Marshal(after)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET words = $1, capabilities = $2 WHERE id = $3", t.name),
		EncodeWords(row.title, row.description), string(encoded), row.id)
	if err != nil {
		return err
	}
	return t.renameCapabilities(ctx, tx, row.id, before, after)
}

// renameCapabilities replaces the capability rows of an agent or a task. A hire has none.
func (t wordsTable) renameCapabilities(ctx context.Context, tx *sql.Tx, id string, before, after []string) error {
	removed := int64(0)
	for _, capability := range before {
		result, err := tx.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s WHERE capability = $1 AND %s = $2", t.capabilities, t.id), capability, id)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		removed += n
	}
	if removed == 0 {
		return nil
	}
	insert := "INSERT INTO agent_capabilities (capability, agent_id) VALUES ($1, $2)"
	if t.name == "tasks" {
		insert = "INSERT INTO task_capabilities (capability, task_id, status) SELECT $1, id, status FROM tasks WHERE id = $2"
	}
	for _, capability := range after {
		if _, err := tx.ExecContext(ctx, insert, capability, id); err != nil {
			return err
		}
	}
	return nil
}

// FillWords indexes the tasks and agents that a process of an older version has written.
// On SQLite there are none after [Open].
func (db *DB) FillWords(ctx context.Context) error {
	if db.pg == nil {
		return nil
	}
	return fillWords(ctx, db.pg.sqlDB, postgresDialect)
}
