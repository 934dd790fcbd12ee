package market

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// MaxPageSize is how many items a page of a list has at most.
const MaxPageSize = 100

// Page is what of a list to return: at most First items after a cursor that an
// earlier page gave.
type Page struct {
	First int
	After string
}

// Check refuses a page of fewer than 1 or more than [MaxPageSize] items.
func (p Page) Check() error {
	if p.First < 1 || p.First > MaxPageSize {
		return models.Invalid("first", "must be from 1 to %d", MaxPageSize)
	}
	return nil
}

// ListResult is a page of a list and whether more follow it.
type ListResult[T any] struct {
	Items   []T
	HasMore bool
}

// Order is a column to sort by. Ids break ties, and alone they sort by age.
type Order struct {
	Column    string // empty for the time of making
	Ascending bool
}

// encodeCursor writes the place of an item: its id, and the value it is sorted by.
func (o Order) encodeCursor(id, sortedBy string) string {
	if o.Column == "" {
		sortedBy = ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(sortedBy + "|" + id))
}

// paginate sorts and pages a query by the order's column and by an id, as the table
// calls it whose index has both. One item more than asked for is fetched, to know
// whether more follow.
func (o Order) paginate(query *gorm.DB, id string, page Page) (*gorm.DB, error) {
	direction, beyond := " DESC", "<"
	if o.Ascending {
		direction, beyond = "", ">"
	}
	if page.After != "" {
		raw, err := base64.RawURLEncoding.DecodeString(page.After)
		sortedBy, lastID, ok := strings.Cut(string(raw), "|")
		if err != nil || !ok || (sortedBy == "") != (o.Column == "") || o.encodeCursor(lastID, sortedBy) != page.After {
			return nil, models.Invalid("after", "must be a cursor of the same list")
		}
		if o.Column == "" {
			query = query.Where(id+" "+beyond+" ?", lastID)
		} else {
			number, err := strconv.ParseFloat(sortedBy, 64)
			if err != nil {
				return nil, models.Invalid("after", "must be a cursor of the same list")
			}
			query = query.Where("("+o.Column+", "+id+") "+beyond+" (?, ?)", number, lastID)
		}
	}
	if o.Column != "" {
		query = query.Order(o.Column + direction)
	}
	return query.Order(id + direction).Limit(page.First + 1), nil
}

// newListResult cuts off the item that only tells that more follow.
func newListResult[T any](items []T, page Page) ListResult[T] {
	if len(items) > page.First {
		return ListResult[T]{Items: items[:page.First], HasMore: true}
	}
	return ListResult[T]{Items: items}
}

// likePattern returns a LIKE pattern that finds text as it is, wildcards included.
func likePattern(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
}

// AgentQuery is which agents to list. Zero fields ask for nothing.
type AgentQuery struct {
	Capability string
	Search     string // in the name or the description
	MaxPrice   *models.Credits
	Modes      []models.ExecutionMode
	Order      Order
}

// Orders of agents.
const (
	ByReputation = "reputation"
	ByPrice      = "price_per_task"
)

// Cursor returns an agent's place in the list.
func (q AgentQuery) Cursor(a *models.Agent) string {
	sortedBy := strconv.FormatInt(int64(a.PricePerTask), 10)
	if q.Order.Column == ByReputation {
		sortedBy = "0"
		if score := a.ReputationScore(); score != nil {
			sortedBy = strconv.FormatFloat(*score, 'g', -1, 64)
		}
	}
	return q.Order.encodeCursor(a.ID, sortedBy)
}

func (q AgentQuery) where(db *gorm.DB) (*gorm.DB, error) {
	query := db.Model(&models.Agent{})
	if err := checkText("filter", q.Capability+q.Search, 0, maxDescription); err != nil {
		return nil, err
	}
	if q.Capability != "" { // its rows have what agents are sorted by
		query = query.Table("agent_capabilities AS c CROSS JOIN agents").Where("c.capability = ? AND agents.id = c.agent_id", normalizeCapability(q.Capability))
	}
	if q.Search != "" {
		query = query.Where(`(LOWER(agents.name) LIKE LOWER(?) ESCAPE '\' OR LOWER(agents.description) LIKE LOWER(?) ESCAPE '\')`, likePattern(q.Search), likePattern(q.Search))
	}
	if q.MaxPrice != nil {
		query = query.Where("agents.price_per_task <= ?", *q.MaxPrice)
	}
	if len(q.Modes) > 0 {
		query = query.Where(`CASE WHEN endpoint_url <> '' THEN 'ENDPOINT' WHEN system_prompt <> '' THEN 'SYSTEM_PROMPT' ELSE 'NONE' END IN ?`, q.Modes)
	}
	return query, nil
}

// ListAgents returns a page of agents.
func (m *Market) ListAgents(ctx context.Context, q AgentQuery, page Page) (ListResult[models.Agent], error) {
	query, err := q.where(m.deps.DB.Read(ctx))
	if err != nil {
		return ListResult[models.Agent]{}, err
	}
	order, id := q.Order, "agents.id"
	if q.Capability != "" {
		id = "c.agent_id"
		if order.Column != "" {
			order.Column = "c." + order.Column
		}
	}
	if query, err = order.paginate(query, id, page); err != nil {
		return ListResult[models.Agent]{}, err
	}
	var agents []models.Agent
	err = query.Select("agents.*").Find(&agents).Error
	return newListResult(agents, page), err
}

// CountAgents returns how many agents the query finds.
func (m *Market) CountAgents(ctx context.Context, q AgentQuery) (int, error) {
	return countRows(q.where(m.deps.DB.Read(ctx)))
}

// TaskQuery is which tasks to list. Zero fields ask for nothing. Direct hires
// are listed only for the agent that PosterID or WorkerID names.
type TaskQuery struct {
	Status     []models.Status
	Capability string
	Search     string // in the title or the description
	MinBudget  *models.Credits
	PosterID   string
	WorkerID   string
	Order      Order
}

// ByBudget orders tasks by what they pay.
const ByBudget = "budget"

// Cursor returns a task's place in the list.
func (q TaskQuery) Cursor(t *models.Task) string {
	return q.Order.encodeCursor(t.ID, strconv.FormatInt(int64(t.Budget), 10))
}

// where is the query without its states.
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

// A statusCondition is some of the tasks that [models.Task.StatusAt] puts in one state.
// Those whose time is over while their row says otherwise are few, since the
// sweep comes by every second: they are found by when their time ended.
type statusCondition struct {
	overdueTable string        // which tasks' time is over at now; empty when all are looked at
	status       models.Status // of the row; empty for any
	condition    string
	args         []any
}

const (
	overdueOffers = "(SELECT id FROM tasks WHERE status = 'open' AND open_until <= ?) AS overdue"
	overdueLeases = "(SELECT id FROM tasks WHERE status = 'assigned' AND lease_until <= ?) AS overdue"
	lapseExpires  = "tasks.origin = 'marketplace' AND (tasks.lapses + 1 >= ? OR tasks.open_until <= ?)"
	lapseReopens  = "tasks.origin = 'marketplace' AND tasks.lapses + 1 < ? AND tasks.open_until > ?"
)

// statusConditions returns the tasks that stand in a state at now, in parts that do
// not overlap. The plus keeps an engine from finding a part by when its time ends,
// which nearly all of it has before it, and sorting it.
func statusConditions(status models.Status, now models.Time) []statusCondition {
	over := []any{models.MaxLapses, now}
	switch status {
	case models.Open:
		return []statusCondition{
			{status: models.Open, condition: "+tasks.open_until > ?", args: []any{now}},
			{status: models.Assigned, overdueTable: overdueLeases, condition: lapseReopens, args: over},
		}
	case models.Assigned:
		return []statusCondition{{status: models.Assigned, condition: "+tasks.lease_until > ?", args: []any{now}}}
	case models.Expired:
		return []statusCondition{
			{status: models.Expired, condition: "1 = 1"},
			{status: models.Open, overdueTable: overdueOffers, condition: "1 = 1"},
			{status: models.Assigned, overdueTable: overdueLeases, condition: lapseExpires, args: over},
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

// orderedTaskQueries returns the queries whose rows together are what q asks for: each finds
// its rows in order by an index, where one query for all would sort everything
// that is open.
func (m *Market) orderedTaskQueries(ctx context.Context, q TaskQuery, now models.Time) ([]*gorm.DB, error) {
	if len(q.Status) == 0 && (q.Order.Column != "" || q.PosterID+q.WorkerID != "") { // these indexes are in order state by state
		q.Status = models.Statuses()
	}
	return m.taskQueries(ctx, q, now)
}

// taskQueries is parts for a list whose order is of no account.
func (m *Market) taskQueries(ctx context.Context, q TaskQuery, now models.Time) ([]*gorm.DB, error) {
	var all []statusCondition
	for _, status := range models.Statuses() { // in this order, and each once
		if slices.Contains(q.Status, status) {
			all = append(all, statusConditions(status, now)...)
		}
	}
	if len(q.Status) == 0 {
		all = []statusCondition{{condition: "1 = 1"}}
	}
	var parts []*gorm.DB
	for _, s := range all {
		query, err := q.where(q.fromTables(m.deps.DB.Read(ctx), s, now).Where(s.condition, s.args...))
		if err != nil {
			return nil, err
		}
		parts = append(parts, query)
	}
	return parts, nil
}

// fromTables is the tables that a part of the list is found in, the one first that has
// its rows in order.
func (q TaskQuery) fromTables(db *gorm.DB, s statusCondition, now models.Time) *gorm.DB {
	tables, args := []string{"tasks"}, []any{}
	if q.usesCapabilityIndex() {
		tables = []string{"task_capabilities AS c", "tasks"}
	}
	if s.overdueTable != "" {
		tables, args = append([]string{s.overdueTable}, tables...), append(args, now)
	}
	query := db.Table(strings.Join(tables, " CROSS JOIN "), args...)
	if s.overdueTable != "" {
		query = query.Where("tasks.id = overdue.id")
	}
	if s.status != "" {
		query = query.Where("tasks.status = ?", s.status)
	}
	if s.status != "" && q.usesCapabilityIndex() {
		query = query.Where("c.status = ?", s.status)
	}
	return query
}

// usesCapabilityIndex reports whether tasks are found by their capability: one agent's
// are fewer.
func (q TaskQuery) usesCapabilityIndex() bool {
	return q.Capability != "" && q.PosterID+q.WorkerID == ""
}

// idColumn is the id that the tasks of a part are sorted by.
func (q TaskQuery) idColumn() string {
	if q.usesCapabilityIndex() && q.Order.Column == "" {
		return "c.task_id"
	}
	return "tasks.id"
}

// ListTasks returns a page of tasks as they stand now.
func (m *Market) ListTasks(ctx context.Context, q TaskQuery, page Page) (ListResult[models.Task], error) {
	now := m.now()
	parts, err := m.orderedTaskQueries(ctx, q, now)
	if err != nil {
		return ListResult[models.Task]{}, err
	}
	for i := range parts {
		if parts[i], err = q.Order.paginate(parts[i].Select(taskColumns), q.idColumn(), page); err != nil {
			return ListResult[models.Task]{}, err
		}
	}
	query := parts[0]
	if len(parts) > 1 {
		if query, err = q.Order.paginate(m.deps.DB.Read(ctx).Table("(?) AS tasks", unionAll(m.deps.DB.Read(ctx), parts)).Select(taskColumns), "tasks.id", page); err != nil {
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

// unionAll puts the rows of queries together.
func unionAll(db *gorm.DB, parts []*gorm.DB) *gorm.DB {
	var selects []string
	var args []any
	for i, part := range parts {
		selects = append(selects, fmt.Sprintf("SELECT * FROM (?) AS part%d", i))
		args = append(args, part)
	}
	return db.Raw(strings.Join(selects, " UNION ALL "), args...)
}

// CountTasks returns how many tasks the query finds.
func (m *Market) CountTasks(ctx context.Context, q TaskQuery) (int, error) {
	parts, err := m.taskQueries(ctx, q, m.now())
	if err != nil {
		return 0, err
	}
	for i := range parts {
		parts[i] = parts[i].Select("COUNT(*) AS n")
	}
	var total int // by one statement: a task that moves meanwhile counts once
	err = m.deps.DB.Read(ctx).Table("(?) AS counts", unionAll(m.deps.DB.Read(ctx), parts)).Select("COALESCE(SUM(n), 0)").Scan(&total).Error
	return total, err
}

func countRows(query *gorm.DB, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	var n int64
	err = query.Count(&n).Error
	return int(n), err
}

// normalizeCapability writes a capability to look for as it is kept.
func normalizeCapability(word string) string { return strings.ToLower(strings.TrimSpace(word)) }

// EntryQuery is which changes of an agent's balance to list.
type EntryQuery struct {
	AgentID string
	Kinds   []models.TransferKind
	TaskID  string
}

// EntryCursor returns a transfer's place in the list.
func EntryCursor(t *models.Transfer) string { return strconv.FormatInt(t.Seq, 10) }

// ListEntries returns a page of the transfers that changed what the agent can
// spend, newest first.
func (m *Market) ListEntries(ctx context.Context, q EntryQuery, page Page) (ListResult[models.Transfer], error) {
	account := models.AvailableAccount(q.AgentID)
	var parts []*gorm.DB
	for _, side := range []string{"debit_account", "credit_account"} {
		part, err := q.where(m.deps.DB.Read(ctx).Table("transfers").Where(side+" = ?", account), page)
		if err != nil {
			return ListResult[models.Transfer]{}, err
		}
		parts = append(parts, part)
	}
	var transfers []models.Transfer
	err := m.deps.DB.Read(ctx).Table("(?) AS transfers", unionAll(m.deps.DB.Read(ctx), parts)).
		Order("seq DESC").Limit(page.First + 1).Find(&transfers).Error
	return newListResult(transfers, page), err
}

// where is the rest of the query, with its page.
func (q EntryQuery) where(query *gorm.DB, page Page) (*gorm.DB, error) {
	if len(q.Kinds) > 0 {
		query = query.Where("kind IN ?", q.Kinds)
	}
	if q.TaskID != "" {
		query = query.Where("task_id = ?", q.TaskID)
	}
	if page.After != "" {
		seq, err := strconv.ParseInt(page.After, 10, 64)
		if err != nil || seq < 0 || strconv.FormatInt(seq, 10) != page.After {
			return nil, models.Invalid("after", "must be a cursor of the same list")
		}
		query = query.Where("seq < ?", seq)
	}
	return query.Order("seq DESC").Limit(page.First + 1), nil
}
