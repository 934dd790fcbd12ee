package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"agentmarket.space/server/internal/database"
)

// reencryptBatchSize is how many rows one transaction seals anew.
const reencryptBatchSize = 500

// EncryptedTable is a table with values that a [Box] has sealed.
type EncryptedTable struct {
	Name       string
	KeyColumns []string // the columns of the primary key, which are texts
	Columns    []string // with sealed values, or null
	Label      func(key []string) string
}

// ReencryptProgress is how far [Reencrypt] has got with a table that has so many rows.
type ReencryptProgress struct {
	Table                string
	Rows, Total, Changed int64
}

// Reencrypt seals anew what the box opens but has not sealed with its own key, a page
// of rows in a transaction. Cut off anywhere it can be begun again, and servers
// whose boxes open both may be at the same rows. tell hears of each page. The first
// value that does not open ends it, with what came before sealed anew.
func Reencrypt(ctx context.Context, db *database.DB, box *Cipher, table EncryptedTable, tell func(ReencryptProgress)) error {
	done := ReencryptProgress{Table: table.Name}
	if err := db.Read(ctx).Table(table.Name).Count(&done.Total).Error; err != nil {
		return fmt.Errorf("seal %s anew: %w", table.Name, err)
	}
	after := make([]string, len(table.KeyColumns)) // empty texts come before all others
	for more := true; more; {
		var page reencryptBatch
		err := db.Write(ctx, func(tx *database.Tx) error {
			page = reencryptBatch{EncryptedTable: table, cipher: box, lastKey: after}
			return page.run(tx)
		})
		if err != nil {
			return fmt.Errorf("seal %s anew: %w", table.Name, err)
		}
		done.Rows, done.Changed, after = done.Rows+page.rows, done.Changed+page.changed, page.lastKey
		more = page.rows == reencryptBatchSize
		tell(done)
	}
	return nil
}

// reencryptBatch is one page on its way.
type reencryptBatch struct {
	EncryptedTable

	cipher        *Cipher
	lastKey       []string // the key of the last row
	rows, changed int64
}

// encryptedRow is the key of a row and what it holds.
type encryptedRow struct {
	key    []string
	values [][]byte
}

// run seals the rows after the last one anew.
func (r *reencryptBatch) run(tx *database.Tx) error {
	found, err := r.lockRows(tx)
	if err != nil {
		return err
	}
	for _, row := range found {
		if err := r.reencryptRow(tx, row); err != nil {
			return err
		}
	}
	return nil
}

// lockRows reads the rows after the last one, and locks them.
func (r *reencryptBatch) lockRows(tx *database.Tx) (found []encryptedRow, err error) {
	keys := strings.Join(r.KeyColumns, ", ")
	after := make([]any, len(r.KeyColumns))
	for i, part := range r.lastKey {
		after[i] = part
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(r.KeyColumns)), ", ")
	rows, err := tx.ForUpdate().Table(r.Name).Select(append(slices.Clone(r.KeyColumns), r.Columns...)).
		Where("("+keys+") > ("+marks+")", after...).Order(keys).Limit(reencryptBatchSize).Rows()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		row := encryptedRow{make([]string, len(r.KeyColumns)), make([][]byte, len(r.Columns))}
		var into []any
		for i := range row.key {
			into = append(into, &row.key[i])
		}
		for i := range row.values {
			into = append(into, &row.values[i])
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		found = append(found, row)
	}
	return found, rows.Err()
}

// reencryptRow seals what a row holds.
func (r *reencryptBatch) reencryptRow(tx *database.Tx, row encryptedRow) error {
	var set []string
	var values []any
	for i, sealed := range row.values {
		if sealed == nil {
			continue
		}
		now, changed, err := r.cipher.Reencrypt(sealed, r.Label(row.key))
		if err != nil {
			return fmt.Errorf("%s of %s: %w", r.Columns[i], strings.Join(row.key, ", "), err)
		}
		if changed {
			set, values = append(set, r.Columns[i]+" = ?"), append(values, now)
		}
	}
	r.rows, r.lastKey = r.rows+1, row.key
	if len(set) == 0 {
		return nil
	}
	r.changed++
	for _, part := range row.key {
		values = append(values, part)
	}
	return tx.ExecOne("UPDATE "+r.Name+" SET "+strings.Join(set, ", ")+" WHERE "+strings.Join(r.KeyColumns, " = ? AND ")+" = ?", values...)
}
