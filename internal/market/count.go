package market

import (
	"context"
	"sync"

	"gorm.io/gorm"
)

// Count is the number of items of a list.
type Count struct {
	N     int
	Exact bool // false if the list has at least N items
}

// LazyCount counts a list when it is first asked. It is safe for concurrent use.
type LazyCount struct {
	once   sync.Once
	count  func(context.Context) (Count, error)
	result Count
	err    error
}

// NewLazyCount returns a count of the list of a query, such as [Market.CountTasks].
func NewLazyCount[Q any](count func(context.Context, Q) (Count, error), q Q) *LazyCount {
	return &LazyCount{count: func(ctx context.Context) (Count, error) { return count(ctx, q) }}
}

// Get returns the count. Later calls return the result of the first one.
func (l *LazyCount) Get(ctx context.Context) (Count, error) {
	l.once.Do(func() { l.result, l.err = l.count(ctx) })
	return l.result, l.err
}

// countRows counts the rows of queries up to a limit, by one statement, which counts a
// task that changes its status once. end is where they end before their last row.
func (m *Market) countRows(ctx context.Context, queries []*gorm.DB, end *horizon) (Count, error) {
	for i := range queries {
		queries[i] = queries[i].Select("1 AS one").Limit(m.bounds.counted + 1)
	}
	var n int
	rows := m.deps.DB.Read(ctx).Table("(?) AS counted", unionAll(m.deps.DB.Read(ctx), queries)).Select("one").Limit(m.bounds.counted + 1)
	err := m.deps.DB.Read(ctx).Table("(?) AS limited", rows).Select("COUNT(*)").Scan(&n).Error
	return Count{N: min(n, m.bounds.counted), Exact: end == nil && n <= m.bounds.counted}, err
}
