package market

import (
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
	overdue      string        // the condition of overdueTable
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
			{status: models.Assigned, overdueTable: overdueLeases, overdue: "tasks.lease_until <= ?", condition: lapseReopens, args: args},
		}
	case models.Assigned:
		return []statusCondition{{status: models.Assigned, condition: "+tasks.lease_until > ?", args: []any{now}}}
	case models.Expired:
		return []statusCondition{
			{status: models.Expired, condition: "1 = 1"},
			{status: models.Open, overdueTable: overdueOffers, overdue: "tasks.open_until <= ?", condition: "1 = 1"},
			{status: models.Assigned, overdueTable: overdueLeases, overdue: "tasks.lease_until <= ?", condition: lapseExpires, args: args},
		}
	case models.Failed:
		return []statusCondition{
			{status: models.Failed, condition: "1 = 1"},
			{status: models.Assigned, overdueTable: overdueLeases, overdue: "tasks.lease_until <= ?", condition: "tasks.origin = 'direct'"},
		}
	case models.Completed, models.Cancelled:
		return []statusCondition{{status: status, condition: "1 = 1"}}
	}
	return nil
}

// conditions returns the disjoint conditions of the statuses of q.
func (q TaskQuery) conditions(now models.Time) []statusCondition {
	wanted := q.Status
	if len(wanted) == 0 && (q.Order.Column != "" || q.PosterID+q.WorkerID != "") { // the indexes for these start with the status
		wanted = models.Statuses()
	}
	if len(wanted) == 0 {
		return []statusCondition{{condition: "1 = 1"}}
	}
	var conditions []statusCondition
	for _, status := range models.Statuses() { // in this order, without duplicates
		if slices.Contains(wanted, status) {
			conditions = append(conditions, statusConditions(status, now)...)
		}
	}
	return conditions
}

// queries returns queries whose union is the result of q without its filters. Each finds
// its rows in order by an index. A single query would have to sort all open tasks.
func (q TaskQuery) queries(db func() *gorm.DB, now models.Time) []*gorm.DB {
	var queries []*gorm.DB
	for _, c := range q.conditions(now) {
		queries = append(queries, q.indexed(q.fromTables(db(), c, now).Where(c.condition, c.args...)))
	}
	return queries
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

// indexed adds the conditions that the index of the list serves.
func (q TaskQuery) indexed(query *gorm.DB) *gorm.DB {
	query = q.owned(query)
	if q.usesCapabilityIndex() {
		query = query.Where("c.capability = ? AND c.task_id = tasks.id", normalizeCapability(q.Capability))
	}
	if q.usesBudgetIndex() && q.MinBudget != nil {
		query = query.Where("tasks.budget >= ?", *q.MinBudget)
	}
	return query
}

// owned adds the condition on the agents of the tasks.
func (q TaskQuery) owned(query *gorm.DB) *gorm.DB {
	switch {
	case q.PosterID != "":
		return query.Where("tasks.poster_id = ?", q.PosterID)
	case q.WorkerID != "":
		return query.Where("tasks.worker_id = ?", q.WorkerID)
	default:
		return query.Where("tasks.origin = 'marketplace'")
	}
}

// walks returns the queries of the indexes that the queries of q walk. Few tasks are
// overdue, so they do not count.
func (q TaskQuery) walks(db func() *gorm.DB, now models.Time) []*gorm.DB {
	var walks []*gorm.DB
	for _, c := range q.conditions(now) {
		if c.overdueTable != "" {
			continue
		}
		var query *gorm.DB
		if q.usesCapabilityIndex() {
			query = db().Table("task_capabilities AS c").Where("c.capability = ?", normalizeCapability(q.Capability))
			if c.status != "" {
				query = query.Where("c.status = ?", c.status)
			}
		} else {
			query = q.indexed(q.fromTables(db(), c, now))
		}
		walks = append(walks, query)
	}
	return walks
}

// matchingStatus returns the condition that a task has one of the statuses of q, for
// queries that find their tasks by id.
func (q TaskQuery) matchingStatus(now models.Time) (condition string, args []any) {
	var parts []string
	for _, c := range q.conditions(now) {
		part := c.condition
		if c.overdue != "" {
			part, args = c.overdue+" AND "+part, append(args, now)
		}
		if args = append(args, c.args...); c.status != "" {
			part, args = part+" AND tasks.status = ?", append(args, c.status)
		}
		parts = append(parts, "("+part+")")
	}
	return strings.Join(parts, " OR "), args
}

// usesCapabilityIndex reports whether the list walks the capability index. The tasks of one
// agent are fewer.
func (q TaskQuery) usesCapabilityIndex() bool {
	return q.Capability != "" && q.PosterID+q.WorkerID == "" && q.Order.Column == ""
}

// usesBudgetIndex reports whether the list walks the index of budgets.
func (q TaskQuery) usesBudgetIndex() bool {
	return q.Order.Column == ByBudget && q.PosterID+q.WorkerID == ""
}

// idColumn returns the id column to sort by.
func (q TaskQuery) idColumn() string {
	if q.usesCapabilityIndex() {
		return "c.task_id"
	}
	return "tasks.id"
}
