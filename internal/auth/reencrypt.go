package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"agentmarket.space/server/internal/database"
)

// reencryptBatchSize is the maximum number of rows re-encrypted in one transaction.
const reencryptBatchSize = 500

// EncryptedTable describes a table with values encrypted by a [Cipher].
type EncryptedTable struct {
	Name       string
	KeyColumns []string // columns of the primary key, of type text
	Columns    []string // columns with an encrypted value or null
	Label      func(key []string) string
}

// ReencryptProgress is the progress of [Reencrypt] in a table. Total is the number
// of rows at the start.
type ReencryptProgress struct {
	Table                string
	Rows, Total, Changed int64
}

// Reencrypt encrypts the values of a table with the current key of c, in batches,
// and calls progress after each batch. It skips values that already use this key, so
// it can be repeated after an interruption. Servers can use the table at the same
// time if they can decrypt both keys. Reencrypt stops at the first value that c
// cannot decrypt; earlier batches stay committed.
func Reencrypt(ctx context.Context, db *database.DB, c *Cipher, table EncryptedTable, progress func(ReencryptProgress)) error {
	done := ReencryptProgress{Table: table.Name}
	if err := db.Read(ctx).Table(table.Name).Count(&done.Total).Error; err != nil {
		return fmt.Errorf("re-encrypt %s: %w", table.Name, err)
	}
	after := make([]string, len(table.KeyColumns)) // the empty text sorts before all others
	for more := true; more; {
		var batch reencryptBatch
		err := db.Write(ctx, func(tx *database.Tx) error {
			batch = reencryptBatch{EncryptedTable: table, cipher: c, lastKey: after}
			return batch.run(tx)
		})
		if err != nil {
			return fmt.Errorf("re-encrypt %s: %w", table.Name, err)
		}
		done.Rows, done.Changed, after = done.Rows+batch.rows, done.Changed+batch.changed, batch.lastKey
		more = batch.rows == reencryptBatchSize
		progress(done)
	}
	return nil
}

// reencryptBatch re-encrypts the rows of one transaction.
type reencryptBatch struct {
	EncryptedTable

	cipher        *Cipher
	lastKey       []string // key of the last row
	rows, changed int64
}

// encryptedRow is the key and the encrypted values of a row.
type encryptedRow struct {
	key    []string
	values [][]byte
}

// run re-encrypts the rows after lastKey.
func (b *reencryptBatch) run(tx *database.Tx) error {
	rows, err := b.lockRows(tx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := b.reencryptRow(tx, row); err != nil {
			return err
		}
	}
	return nil
}

// lockRows reads and locks the rows after lastKey.
func (b *reencryptBatch) lockRows(tx *database.Tx) (found []encryptedRow, err error) {
	keys := strings.Join(b.KeyColumns, ", ")
	after := make([]any, len(b.KeyColumns))
	for i, part := range b.lastKey {
		after[i] = part
	}
	placeholders := strings.TrimSuffix(strings.Repeat("?, ", len(b.KeyColumns)), ", ")
	rows, err := tx.ForUpdate().Table(b.Name).Select(append(slices.Clone(b.KeyColumns), b.Columns...)).
		Where("("+keys+") > ("+placeholders+")", after...).Order(keys).Limit(reencryptBatchSize).Rows()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		row := encryptedRow{make([]string, len(b.KeyColumns)), make([][]byte, len(b.Columns))}
		var dest []any
		for i := range row.key {
			dest = append(dest, &row.key[i])
		}
		for i := range row.values {
			dest = append(dest, &row.values[i])
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		found = append(found, row)
	}
	return found, rows.Err()
}

// reencryptRow re-encrypts the values of a row.
func (b *reencryptBatch) reencryptRow(tx *database.Tx, row encryptedRow) error {
	var assignments []string
	var args []any
	for i, encrypted := range row.values {
		if encrypted == nil || IsLost(encrypted) {
			continue
		}
		value, changed, err := b.cipher.Reencrypt(encrypted, b.Label(row.key))
		if err != nil {
			return fmt.Errorf("%s of %s: %w", b.Columns[i], strings.Join(row.key, ", "), err)
		}
		if changed {
			assignments, args = append(assignments, b.Columns[i]+" = ?"), append(args, value)
		}
	}
	b.rows, b.lastKey = b.rows+1, row.key
	if len(assignments) == 0 {
		return nil
	}
	b.changed++
	for _, part := range row.key {
		args = append(args, part)
	}
	return tx.ExecOne("UPDATE "+b.Name+" SET "+strings.Join(assignments, ", ")+" WHERE "+strings.Join(b.KeyColumns, " = ? AND ")+" = ?", args...)
}
