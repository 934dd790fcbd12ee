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

// where adds all filters but the status to a query.
func (q TaskQuery) where(query *gorm.DB) (*gorm.DB, error) {
	if err := checkText("filter", q.Capability+q.Search, 0, maxDescription); err != nil {
		return nil, err
	}
	switch {
	case q.PosterID != "":
		query = query.Where("tasks.poster_id = ?", q.PosterID)
	case q.WorkerID != "":
		query = query.Where("tasks.worker_id = ?", q.WorkerID)
	default:
		query = query.Where("tasks.origin = 'marketplace'")
	}
	switch {
	case q.usesCapabilityIndex():
		query = query.Where("c.capability = ? AND c.task_id = tasks.id", normalizeCapability(q.Capability))
	case q.Capability != "":
		query = query.Where("EXISTS (SELECT 1 FROM task_capabilities c WHERE c.capability = ? AND c.task_id = tasks.id)", normalizeCapability(q.Capability))
	}
	if q.Search != "" {
		query = query.Where(`(LOWER(tasks.title) LIKE LOWER(?) ESCAPE '\' OR LOWER(tasks.description) LIKE LOWER(?) ESCAPE '\')`, likePattern(q.Search), likePattern(q.Search))
	}
	if q.MinBudget != nil {
		query = query.Where("tasks.budget >= ?", *q.MinBudget)
	}
	return query, nil
}

// ListTasks returns a page of tasks in their current state. INVALID_INPUT for an invalid
// filter or cursor.
func (m *Market) ListTasks(ctx context.Context, q TaskQuery, page Page) (ListResult[models.Task], error) {
	now := m.timestamp()
	queries, err := m.orderedTaskQueries(ctx, q, now)
	if err != nil {
		return ListResult[models.Task]{}, err
	}
	for i := range queries {
		if queries[i], err = q.Order.paginate(queries[i].Select(taskColumns), q.idColumn(), page); err != nil {
			return ListResult[models.Task]{}, err
		}
	}
	query := queries[0]
	if len(queries) > 1 {
		if query, err = q.Order.paginate(m.deps.DB.Read(ctx).Table("(?) AS tasks", unionAll(m.deps.DB.Read(ctx), queries)).Select(taskColumns), "tasks.id", page); err != nil {
			return ListResult[models.Task]{}, err
		}
	}
	tasks, err := scanTasks(query, page.First+1)
	if err != nil {
		return ListResult[models.Task]{}, err
	}
	for i := range tasks {
		tasks[i] = tasks[i].AsOf(now)
	}
	return newListResult(tasks, page), nil
}

// CountTasks returns the number of tasks that match the query.
func (m *Market) CountTasks(ctx context.Context, q TaskQuery) (int, error) {
	queries, err := m.taskQueries(ctx, q, m.timestamp())
	if err != nil {
		return 0, err
	}
	for i := range queries {
		queries[i] = queries[i].Select("COUNT(*) AS n")
	}
	var total int // by one statement, which counts a task that changes its status once
	err = m.deps.DB.Read(ctx).Table("(?) AS counts", unionAll(m.deps.DB.Read(ctx), queries)).Select("COALESCE(SUM(n), 0)").Scan(&total).Error
	return total, err
}
