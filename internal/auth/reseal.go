package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"agentmarket.space/server/internal/database"
)

// resealPage is how many rows one transaction seals anew.
const resealPage = 500

// Sealed is a table with values that a [Box] has sealed.
type Sealed struct {
	Table   string
	Key     []string // the columns of the primary key, which are texts
	Columns []string // with sealed values, or null
	Label   func(key []string) string
}

// Resealed is how far [Reseal] has got with a table that has so many rows.
type Resealed struct {
	Table             string
	Rows, Of, Changed int64
}

// Reseal seals anew what the box opens but has not sealed with its own key, a page
// of rows in a transaction. Cut off anywhere it can be begun again, and servers
// whose boxes open both may be at the same rows. tell hears of each page. The first
// value that does not open ends it, with what came before sealed anew.
func Reseal(ctx context.Context, db *database.DB, box *Box, table Sealed, tell func(Resealed)) error {
	done := Resealed{Table: table.Table}
	if err := db.Read(ctx).Table(table.Table).Count(&done.Of).Error; err != nil {
		return fmt.Errorf("seal %s anew: %w", table.Table, err)
	}
	after := make([]string, len(table.Key)) // empty texts come before all others
	for more := true; more; {
		var page resealing
		err := db.Write(ctx, func(tx *database.Tx) error {
			page = resealing{Sealed: table, box: box, last: after}
			return page.run(tx)
		})
		if err != nil {
			return fmt.Errorf("seal %s anew: %w", table.Table, err)
		}
		done.Rows, done.Changed, after = done.Rows+page.rows, done.Changed+page.changed, page.last
		more = page.rows == resealPage
		tell(done)
	}
	return nil
}

// resealing is one page on its way.
type resealing struct {
	Sealed

	box           *Box
	last          []string // the key of the last row
	rows, changed int64
}

// sealedRow is the key of a row and what it holds.
type sealedRow struct {
	key    []string
	sealed [][]byte
}

// run seals the rows after the last one anew.
func (r *resealing) run(tx *database.Tx) error {
	found, err := r.find(tx)
	if err != nil {
		return err
	}
	for _, row := range found {
		if err := r.row(tx, row); err != nil {
			return err
		}
	}
	return nil
}

// find reads the rows after the last one, and locks them.
func (r *resealing) find(tx *database.Tx) (found []sealedRow, err error) {
	keys := strings.Join(r.Key, ", ")
	after := make([]any, len(r.Key))
	for i, part := range r.last {
		after[i] = part
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(r.Key)), ", ")
	rows, err := tx.Locked().Table(r.Table).Select(append(slices.Clone(r.Key), r.Columns...)).
		Where("("+keys+") > ("+marks+")", after...).Order(keys).Limit(resealPage).Rows()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		row := sealedRow{make([]string, len(r.Key)), make([][]byte, len(r.Columns))}
		var into []any
		for i := range row.key {
			into = append(into, &row.key[i])
		}
		for i := range row.sealed {
			into = append(into, &row.sealed[i])
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		found = append(found, row)
	}
	return found, rows.Err()
}

// row seals what a row holds.
func (r *resealing) row(tx *database.Tx, row sealedRow) error {
	var set []string
	var values []any
	for i, sealed := range row.sealed {
		if sealed == nil {
			continue
		}
		now, changed, err := r.box.Reseal(sealed, r.Label(row.key))
		if err != nil {
			return fmt.Errorf("%s of %s: %w", r.Columns[i], strings.Join(row.key, ", "), err)
		}
		if changed {
			set, values = append(set, r.Columns[i]+" = ?"), append(values, now)
		}
	}
	r.rows, r.last = r.rows+1, row.key
	if len(set) == 0 {
		return nil
	}
	r.changed++
	for _, part := range row.key {
		values = append(values, part)
	}
	return tx.Run("UPDATE "+r.Table+" SET "+strings.Join(set, ", ")+" WHERE "+strings.Join(r.Key, " = ? AND ")+" = ?", values...)
}
