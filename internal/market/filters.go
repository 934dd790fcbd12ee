package market

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/words"
	"agentmarket.space/server/models"
)

// A list reads its rows in order by an index, which also serves some of its conditions.
// The other conditions are filters. A list with filters does one of two things:
//
//   - If few rows satisfy one of the filters, it reads all of them by the index of that
//     filter, applies the other conditions, and sorts.
//   - Otherwise it walks its own index in order. The walk ends after some rows. The page
//     can then have fewer items than asked for, and its end is where the walk ended.
//
// Both bound the cost of a page whatever the size of the market.
type listBounds struct {
	found   int // rows of a filter that are read by its index
	walked  int // rows that a walk reads
	counted int // the largest number that a count of a list returns
}

// defaultListBounds keeps every list and count of a million tasks below 50 ms.
var defaultListBounds = listBounds{found: 2000, walked: 4000, counted: 10_000} //nolint:gochecknoglobals // constant

// maxSearchTerms is the number of words of a search.
const maxSearchTerms = 20

// filter is a condition that the index of a list does not serve. A unary plus keeps the
// planner from using another index and sorting the result.
type filter struct {
	condition string
	args      []any
	// ids selects the rows that satisfy it by an index, as the column id. It is nil if there
	// is no such index.
	ids func(db *gorm.DB, limit int) *gorm.DB
}

// readBounded returns the result of read, which reads or counts a list, within the store
// time of the operation. A heavy read waits until few others run.
func readBounded[T any](ctx context.Context, m *Market, heavy bool, read func(context.Context) (T, error)) (result T, err error) {
	err = m.deps.DB.ReadBounded(ctx, heavy, func(ctx context.Context) (err error) {
		result, err = read(ctx)
		return err
	})
	return result, err
}

// applyFilters adds filters to a query.
func applyFilters(query *gorm.DB, filters []filter) *gorm.DB {
	for _, f := range filters {
		query = query.Where(f.condition, f.args...)
	}
	return query
}

// searchFilters returns the filters of a search: the row has every word of it, and a word
// that starts with the last one. table is tasks or agents, wordsTable its search index with
// the ids in idColumn. INVALID_INPUT for too many words.
func (m *Market) searchFilters(search, table, wordsTable, idColumn string) ([]filter, error) {
	if strings.TrimSpace(search) == "" {
		return nil, nil
	}
	terms := words.Search(search)
	if len(terms) > maxSearchTerms {
		return nil, models.FieldErrorf("search", "must have at most %d words", maxSearchTerms)
	}
	if len(terms) == 0 { // no text has a word of it
		return []filter{{condition: "1 = 0", ids: func(db *gorm.DB, _ int) *gorm.DB {
			return db.Table(wordsTable).Select(idColumn+" AS id").Where("word = ?", "")
		}}}, nil
	}
	position := "instr"
	if m.deps.DB.IsShared() {
		position = "strpos"
	}
	var filters []filter
	for _, term := range terms {
		f := filter{condition: position + "(" + table + ".words, ?) > 0"}
		if term.Prefix {
			f.args = []any{`"` + term.Word}
			f.ids = func(db *gorm.DB, _ int) *gorm.DB {
				return db.Table(wordsTable).Select(idColumn+" AS id").Where("word >= ? AND word < ?", term.Word, term.Word+lastRune)
			}
		} else {
			f.args = []any{`"` + term.Word + `"`}
			f.ids = func(db *gorm.DB, _ int) *gorm.DB {
				return db.Table(wordsTable).Select(idColumn+" AS id").Where("word = ?", term.Word)
			}
		}
		filters = append(filters, f)
	}
	return filters, nil
}

// lastRune sorts after every character of a word.
const lastRune = "\U0010ffff"

// findIDs returns the rows of the first filter that few rows satisfy. few is false if there
// is no such filter.
func (m *Market) findIDs(ctx context.Context, filters []filter) (ids []string, few bool, err error) {
	ids = []string{} // encoded as an array
	for _, f := range filters {
		if f.ids == nil {
			continue
		}
		ids = ids[:0]
		if err := f.ids(m.deps.DB.Read(ctx), m.bounds.found+1).Limit(m.bounds.found + 1).Scan(&ids).Error; err != nil {
			return nil, false, err
		}
		if len(ids) <= m.bounds.found {
			slices.Sort(ids)
			return slices.Compact(ids), true, nil
		}
	}
	return nil, false, nil
}

// fromIDs returns a query of the rows of a table with the given ids. The ids come first, so
// that nothing else of the table is read.
func (m *Market) fromIDs(ctx context.Context, table string, ids []string) (*gorm.DB, error) {
	encoded, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	found := "json_each(?) AS found"
	if m.deps.DB.IsShared() {
		found = "json_array_elements_text(?::text::json) AS found (value)"
	}
	return m.deps.DB.Read(ctx).Table(found+" CROSS JOIN "+table, string(encoded)).Where(table + ".id = found.value"), nil
}

// horizon is where a walk ends: the last row it reads.
type horizon struct {
	ID       string
	SortedBy float64
}

// findHorizon returns where the walks of queries in order end, or nil if they read all rows.
// Each query selects id and sorted_by from an index. If several walks end, the nearest end
// counts for all.
func (m *Market) findHorizon(ctx context.Context, order Order, queries []*gorm.DB) (*horizon, error) {
	if len(queries) == 0 {
		return nil, nil //nolint:nilnil // nothing is walked
	}
	for i := range queries {
		queries[i] = queries[i].Offset(m.bounds.walked - 1).Limit(1)
	}
	var ends []horizon
	if err := unionAll(m.deps.DB.Read(ctx), queries).Scan(&ends).Error; err != nil || len(ends) == 0 {
		return nil, err
	}
	nearest := slices.MinFunc(ends, order.compare)
	return &nearest, nil
}
