package market

import (
	"context"
	"slices"
	"strings"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// statusCondition selects some of the tasks with a status, as [models.Task.StatusAt]
// defines it. Few rows have a status that is out of date, because the sweep runs every
// second; they are found by an index of their deadlines.
type statusCondition struct {
	overdueTable string        // subquery of the overdue tasks; empty to select from all tasks
	status       models.Status // of the row; empty for any status
	condition    string
	args         []any
}

const (
	overdueOffers = "(SELECT id FROM tasks WHERE status = 'open' AND open_until <= ?) AS overdue"
	overdueLeases = "(SELECT id FROM tasks WHERE status = 'assigned' AND lease_until <= ?) AS overdue"
	lapseExpires  = "tasks.origin = 'marketplace' AND (tasks.lapses + 1 >= ? OR tasks.open_until <= ?)"
	lapseReopens  = "tasks.origin = 'marketplace' AND tasks.lapses + 1 < ? AND tasks.open_until > ?"
)

// statusConditions returns disjoint conditions that together select the tasks with a
// status at now. The unary plus keeps the planner from using the index of deadlines,
// which nearly all rows satisfy, and sorting the result.
func statusConditions(status models.Status, now models.Time) []statusCondition {
	args := []any{models.MaxLapses, now}
	switch status {
	case models.Open:
		return []statusCondition{
			{status: models.Open, condition: "+tasks.open_until > ?", args: []any{now}},
			{status: models.Assigned, overdueTable: overdueLeases, condition: lapseReopens, args: args},
		}
	case models.Assigned:
		return []statusCondition{{status: models.Assigned, condition: "+tasks.lease_until > ?", args: []any{now}}}
	case models.Expired:
		return []statusCondition{
			{status: models.Expired, condition: "1 = 1"},
			{status: models.Open, overdueTable: overdueOffers, condition: "1 = 1"},
			{status: models.Assigned, overdueTable: overdueLeases, condition: lapseExpires, args: args},
		}
	case models.Failed:
		return []statusCondition{
			{status: models.Failed, condition: "1 = 1"},
			{status: models.Assigned, overdueTable: overdueLeases, condition: "tasks.origin = 'direct'"},
		}
	case models.Completed, models.Cancelled:
		return []statusCondition{{status: status, condition: "1 = 1"}}
	}
	return nil
}

// orderedTaskQueries returns queries whose union is the result of q. Each finds its rows in
// order by an index. A single query would have to sort all open tasks.
func (m *Market) orderedTaskQueries(ctx context.Context, q TaskQuery, now models.Time) ([]*gorm.DB, error) {
	if len(q.Status) == 0 && (q.Order.Column != "" || q.PosterID+q.WorkerID != "") { // the indexes for these start with the status
		q.Status = models.Statuses()
	}
	return m.taskQueries(ctx, q, now)
}

// taskQueries returns queries whose union is the result of q in any order.
func (m *Market) taskQueries(ctx context.Context, q TaskQuery, now models.Time) ([]*gorm.DB, error) {
	var conditions []statusCondition
	for _, status := range models.Statuses() { // in this order, without duplicates
		if slices.Contains(q.Status, status) {
			conditions = append(conditions, statusConditions(status, now)...)
		}
	}
	if len(q.Status) == 0 {
		conditions = []statusCondition{{condition: "1 = 1"}}
	}
	var queries []*gorm.DB
	for _, c := range conditions {
		query, err := q.where(q.fromTables(m.deps.DB.Read(ctx), c, now).Where(c.condition, c.args...))
		if err != nil {
			return nil, err
		}
		queries = append(queries, query)
	}
	return queries, nil
}

// fromTables returns a query of the tables for a status condition. The first table has the
// index that returns the rows in order.
func (q TaskQuery) fromTables(db *gorm.DB, c statusCondition, now models.Time) *gorm.DB {
	tables, args := []string{"tasks"}, []any{}
	if q.usesCapabilityIndex() {
		tables = []string{"task_capabilities AS c", "tasks"}
	}
	if c.overdueTable != "" {
		tables, args = append([]string{c.overdueTable}, tables...), append(args, now)
	}
	query := db.Table(strings.Join(tables, " CROSS JOIN "), args...)
	if c.overdueTable != "" {
		query = query.Where("tasks.id = overdue.id")
	}
	if c.status != "" {
		query = query.Where("tasks.status = ?", c.status)
	}
	if c.status != "" && q.usesCapabilityIndex() {
		query = query.Where("c.status = ?", c.status)
	}
	return query
}

// usesCapabilityIndex reports whether the query starts from the capability index. The tasks
// of one agent are fewer.
func (q TaskQuery) usesCapabilityIndex() bool {
	return q.Capability != "" && q.PosterID+q.WorkerID == ""
}

// idColumn returns the id column to sort by.
func (q TaskQuery) idColumn() string {
	if q.usesCapabilityIndex() && q.Order.Column == "" {
		return "c.task_id"
	}
	return "tasks.id"
}
