package market

import (
	"cmp"
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
	HasMore bool // whether items can follow the page
	// End is the cursor at which the next page starts if that is not the cursor of the last
	// item: the page is short because its walk ended.
	End string
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
	query, err := o.startAfter(query, id, page)
	if err != nil {
		return nil, err
	}
	return o.sort(query, id).Limit(page.First + 1), nil
}

// startAfter adds the cursor condition to a query.
func (o Order) startAfter(query *gorm.DB, id string, page Page) (*gorm.DB, error) {
	comparison := "<"
	if o.Ascending {
		comparison = ">"
	}
	if page.After != "" {
		raw, err := base64.RawURLEncoding.DecodeString(page.After)
		sortedBy, lastID, ok := strings.Cut(string(raw), "|")
		if id, isID := models.ParseUUID(lastID); err != nil || !ok || !isID || id != lastID || (sortedBy == "") != (o.Column == "") || o.encodeCursor(lastID, sortedBy) != page.After {
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
	return query, nil
}

// sort adds ORDER BY to a query.
func (o Order) sort(query *gorm.DB, id string) *gorm.DB {
	direction := " DESC"
	if o.Ascending {
		direction = ""
	}
	if o.Column != "" {
		query = query.Order(o.Column + direction)
	}
	return query.Order(id + direction)
}

// until adds the condition that a row is not after the end of a walk, if it ends.
func (o Order) until(query *gorm.DB, id string, end *horizon) *gorm.DB {
	comparison := ">="
	if o.Ascending {
		comparison = "<="
	}
	switch {
	case end == nil:
		return query
	case o.Column == "":
		return query.Where(id+" "+comparison+" ?", end.ID)
	default:
		return query.Where("("+o.Column+", "+id+") "+comparison+" (?, ?)", end.SortedBy, end.ID)
	}
}

// compare compares two rows in the order.
func (o Order) compare(a, b horizon) int {
	if o.Ascending {
		a, b = b, a
	}
	return cmp.Or(cmp.Compare(b.SortedBy, a.SortedBy), cmp.Compare(b.ID, a.ID))
}

// horizonColumns returns the columns of a [horizon].
func (o Order) horizonColumns(id string) string {
	return id + " AS id, " + cmp.Or(o.Column, "0") + " AS sorted_by"
}

// shorten marks a page that its walk did not fill as followed by the rest of the list.
func (o Order) shorten(hasMore *bool, cursor *string, end *horizon) {
	if end == nil || *hasMore {
		return
	}
	*hasMore, *cursor = true, o.encodeCursor(end.ID, strconv.FormatFloat(end.SortedBy, 'f', -1, 64))
}

// newListResult removes the extra item of [Order.paginate] and sets HasMore.
func newListResult[T any](items []T, page Page) ListResult[T] {
	if len(items) > page.First {
		return ListResult[T]{Items: items[:page.First], HasMore: true}
	}
	return ListResult[T]{Items: items}
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
