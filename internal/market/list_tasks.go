package market

import (
	"context"
	"strconv"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// TaskQuery filters and sorts tasks. Zero fields do not filter. Direct hires are included
// only if PosterID or WorkerID is set.
type TaskQuery struct {
	Status     []models.Status
	Capability string
	Search     string // in the title or the description
	MinBudget  *models.Credits
	PosterID   string
	WorkerID   string
	Order      Order
}

// ByBudget is the column of an [Order] of tasks by budget.
const ByBudget = "budget"

// Cursor returns a task's cursor in the list.
func (q TaskQuery) Cursor(t *models.Task) string {
	return q.Order.encodeCursor(t.ID, strconv.FormatInt(int64(t.Budget), 10))
}

// hasCapability is the condition that a task requires a capability.
const hasCapability = "EXISTS (SELECT 1 FROM task_capabilities c WHERE c.capability = ? AND c.task_id = tasks.id)"

// taskFilters returns the conditions that the index of the list does not serve. INVALID_INPUT
// for an invalid condition.
func (m *Market) taskFilters(q TaskQuery) ([]filter, error) {
	if err := checkText("filter", q.Capability+q.Search, 0, maxDescription); err != nil {
		return nil, err
	}
	filters, err := m.searchFilters(q.Search, "tasks", "task_words", "task_id")
	if err != nil {
		return nil, err
	}
	if q.Capability != "" && !q.usesCapabilityIndex() {
		capability := normalizeCapability(q.Capability)
		filters = append(filters, filter{
			condition: hasCapability, args: []any{capability},
			ids: func(db *gorm.DB, _ int) *gorm.DB {
				return db.Table("task_capabilities").Select("task_id AS id").Where("capability = ?", capability)
			},
		})
	}
	if q.MinBudget != nil && !q.usesBudgetIndex() {
		filters = append(filters, filter{condition: "+tasks.budget >= ?", args: []any{*q.MinBudget}, ids: q.idsByBudget})
	}
	return filters, nil
}

// idsByBudget selects the posted tasks with the minimum budget.
func (q TaskQuery) idsByBudget(db *gorm.DB, limit int) *gorm.DB {
	var queries []*gorm.DB
	for _, status := range models.Statuses() {
		queries = append(queries, db.Session(&gorm.Session{NewDB: true}).Table("tasks").Select("id").
			Where("origin = 'marketplace' AND status = ? AND budget >= ?", status, *q.MinBudget).Order("budget DESC, id DESC").Limit(limit))
	}
	return db.Table("(?) AS found", unionAll(db.Session(&gorm.Session{NewDB: true}), queries)).Select("id")
}

// ListTasks returns a page of tasks in their current state. With a search, or another filter
// that the order's index does not serve, a page can be short although others follow it.
// INVALID_INPUT for an invalid filter or cursor.
func (m *Market) ListTasks(ctx context.Context, q TaskQuery, page Page) (ListResult[models.Task], error) {
	filters, err := m.taskFilters(q)
	if err != nil {
		return ListResult[models.Task]{}, err
	}
	return readBounded(ctx, m, len(filters) > 0, func(ctx context.Context) (ListResult[models.Task], error) { return m.listTasks(ctx, q, filters, page) })
}

func (m *Market) listTasks(ctx context.Context, q TaskQuery, filters []filter, page Page) (ListResult[models.Task], error) {
	now := m.timestamp()
	ids, few, err := m.findIDs(ctx, filters)
	if err != nil {
		return ListResult[models.Task]{}, err
	}
	var query *gorm.DB
	var end *horizon
	if few {
		if query, err = m.tasksByID(ctx, q, filters, ids, now); err == nil {
			query, err = q.Order.paginate(query.Select(taskColumns), "tasks.id", page)
		}
	} else {
		query, end, err = m.walkTasks(ctx, q, filters, page, now)
	}
	if err != nil {
		return ListResult[models.Task]{}, err
	}
	tasks, err := scanTasks(query, page.First+1)
	if err != nil {
		return ListResult[models.Task]{}, err
	}
	for i := range tasks {
		tasks[i] = tasks[i].AsOf(now)
	}
	result := newListResult(tasks, page)
	q.Order.shorten(&result.HasMore, &result.End, end)
	return result, nil
}

// tasksByID returns a query of the tasks with the given ids that match q.
func (m *Market) tasksByID(ctx context.Context, q TaskQuery, filters []filter, ids []string, now models.Time) (*gorm.DB, error) {
	query, err := m.fromIDs(ctx, "tasks", ids)
	if err != nil {
		return nil, err
	}
	query = q.owned(query)
	if q.Capability != "" {
		query = query.Where(hasCapability, normalizeCapability(q.Capability))
	}
	if q.MinBudget != nil {
		query = query.Where("tasks.budget >= ?", *q.MinBudget)
	}
	condition, args := q.matchingStatus(now)
	return applyFilters(query.Where(condition, args...), filters), nil
}

// walkTasks returns a query for a page of q that walks the index of its order, and where
// the walk ends. A walk without filters fills its page.
func (m *Market) walkTasks(ctx context.Context, q TaskQuery, filters []filter, page Page, now models.Time) (query *gorm.DB, end *horizon, err error) {
	read := func() *gorm.DB { return m.deps.DB.Read(ctx) }
	if len(filters) > 0 {
		if end, err = m.taskHorizon(ctx, q, page, now); err != nil {
			return nil, nil, err
		}
	}
	queries := q.queries(read, now)
	for i := range queries {
		part := q.Order.until(applyFilters(queries[i], filters), q.idColumn(), end)
		if queries[i], err = q.Order.paginate(part.Select(taskColumns), q.idColumn(), page); err != nil {
			return nil, nil, err
		}
	}
	if len(queries) == 1 {
		return queries[0], end, nil
	}
	query, err = q.Order.paginate(read().Table("(?) AS tasks", unionAll(read(), queries)).Select(taskColumns), "tasks.id", page)
	return query, end, err
}

// taskHorizon returns where the walk of a page of q ends.
func (m *Market) taskHorizon(ctx context.Context, q TaskQuery, page Page, now models.Time) (end *horizon, err error) {
	walks := q.walks(func() *gorm.DB { return m.deps.DB.Read(ctx) }, now)
	for i := range walks {
		if walks[i], err = q.Order.startAfter(walks[i].Select(q.Order.horizonColumns(q.idColumn())), q.idColumn(), page); err != nil {
			return nil, err
		}
		walks[i] = q.Order.sort(walks[i], q.idColumn())
	}
	return m.findHorizon(ctx, q.Order, walks)
}

// CountTasks returns the number of tasks that match the query. A count is not exact above
// a limit, and for a walk that does not read all rows.
func (m *Market) CountTasks(ctx context.Context, q TaskQuery) (Count, error) {
	q.Order = Order{}
	if q.MinBudget != nil && q.Capability+q.PosterID+q.WorkerID == "" { // served by the index of this order
		q.Order.Column = ByBudget
	}
	filters, err := m.taskFilters(q)
	if err != nil {
		return Count{}, err
	}
	return readBounded(ctx, m, true, func(ctx context.Context) (Count, error) { return m.countTasks(ctx, q, filters) })
}

func (m *Market) countTasks(ctx context.Context, q TaskQuery, filters []filter) (Count, error) {
	now := m.timestamp()
	ids, few, err := m.findIDs(ctx, filters)
	if err != nil {
		return Count{}, err
	}
	if few {
		query, err := m.tasksByID(ctx, q, filters, ids, now)
		if err != nil {
			return Count{}, err
		}
		return m.countRows(ctx, []*gorm.DB{query}, nil)
	}
	var end *horizon
	if len(filters) > 0 {
		if end, err = m.taskHorizon(ctx, q, Page{}, now); err != nil {
			return Count{}, err
		}
	}
	queries := q.queries(func() *gorm.DB { return m.deps.DB.Read(ctx) }, now)
	for i := range queries {
		queries[i] = q.Order.sort(q.Order.until(applyFilters(queries[i], filters), q.idColumn(), end), q.idColumn())
	}
	return m.countRows(ctx, queries, end)
}
