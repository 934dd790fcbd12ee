package market

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// MaxPageSize is the largest number of items of a page.
const MaxPageSize = 100

// Page selects a page of a list: at most First items after the cursor After, which is
// empty for the first page.
type Page struct {
	First int
	After string
}

// Check returns INVALID_INPUT unless First is from 1 to [MaxPageSize].
func (p Page) Check() error {
	if p.First < 1 || p.First > MaxPageSize {
		return models.FieldErrorf("first", "must be from 1 to %d", MaxPageSize)
	}
	return nil
}

// ListResult is a page of a list.
type ListResult[T any] struct {
	Items   []T
	HasMore bool // whether items follow the page
}

// Order is the sort order of a list, descending unless Ascending is set. Ids break ties.
type Order struct {
	Column    string // empty for the creation time
	Ascending bool
}

// encodeCursor returns the cursor of an item from its id and its value in the column.
func (o Order) encodeCursor(id, sortedBy string) string {
	if o.Column == "" {
		sortedBy = ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(sortedBy + "|" + id))
}

// paginate adds ORDER BY, the cursor condition and LIMIT to a query. It sorts by the
// order's column and by id, the column that the index uses as the tie breaker. The limit
// is one item more than the page has; see [newListResult]. INVALID_INPUT for a cursor of
// another list.
func (o Order) paginate(query *gorm.DB, id string, page Page) (*gorm.DB, error) {
	direction, comparison := " DESC", "<"
	if o.Ascending {
		direction, comparison = "", ">"
	}
	if page.After != "" {
		raw, err := base64.RawURLEncoding.DecodeString(page.After)
		sortedBy, lastID, ok := strings.Cut(string(raw), "|")
		if err != nil || !ok || (sortedBy == "") != (o.Column == "") || o.encodeCursor(lastID, sortedBy) != page.After {
			return nil, models.FieldErrorf("after", "must be a cursor of the same list")
		}
		if o.Column == "" {
			query = query.Where(id+" "+comparison+" ?", lastID)
		} else {
			number, err := strconv.ParseFloat(sortedBy, 64)
			if err != nil {
				return nil, models.FieldErrorf("after", "must be a cursor of the same list")
			}
			query = query.Where("("+o.Column+", "+id+") "+comparison+" (?, ?)", number, lastID)
		}
	}
	if o.Column != "" {
		query = query.Order(o.Column + direction)
	}
	return query.Order(id + direction).Limit(page.First + 1), nil
}

// newListResult removes the extra item of [Order.paginate] and sets HasMore.
func newListResult[T any](items []T, page Page) ListResult[T] {
	if len(items) > page.First {
		return ListResult[T]{Items: items[:page.First], HasMore: true}
	}
	return ListResult[T]{Items: items}
}

// likePattern returns a LIKE pattern for columns that contain text literally.
func likePattern(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
}

func countRows(query *gorm.DB, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	var n int64
	err = query.Count(&n).Error
	return int(n), err
}

// unionAll returns the UNION ALL of queries.
func unionAll(db *gorm.DB, queries []*gorm.DB) *gorm.DB {
	var selects []string
	var args []any
	for i, query := range queries {
		selects = append(selects, fmt.Sprintf("SELECT * FROM (?) AS part%d", i))
		args = append(args, query)
	}
	return db.Raw(strings.Join(selects, " UNION ALL "), args...)
}
