package market

import (
	"context"
	"strconv"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// AgentQuery filters and sorts agents. Zero fields do not filter.
type AgentQuery struct {
	Capability string
	Search     string // in the name or the description
	MaxPrice   *models.Credits
	Modes      []models.ExecutionMode
	Order      Order
}

// Columns of an [Order] of agents.
const (
	ByReputation = "reputation"
	ByPrice      = "price_per_task"
)

// Cursor returns an agent's cursor in the list.
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

// agentColumns are the columns of [models.Agent].
const agentColumns = `agents.id, agents.name, agents.description, agents.capabilities, agents.price_per_task, agents.endpoint_url, agents.system_prompt,
	agents.owner_email, agents.rating_sum, agents.rating_count, agents.completed_count, agents.created_at`

// modeExpression is the expression of the index agents_by_mode.
const modeExpression = `CASE WHEN endpoint_url <> '' THEN 'ENDPOINT' WHEN system_prompt <> '' THEN 'SYSTEM_PROMPT' ELSE 'NONE' END`

// modeFilter has the same value. No index has this expression: a planner would read the
// agents of a mode by it and sort them all.
const modeFilter = `CASE WHEN endpoint_url = '' AND system_prompt = '' THEN 'NONE' WHEN endpoint_url = '' THEN 'SYSTEM_PROMPT' ELSE 'ENDPOINT' END`

// index returns a query of the rows in order: those of agents, or of one capability, which
// copy the sort columns. It also returns the order with the names of the columns, and the
// name of the id.
func (q AgentQuery) index(db *gorm.DB) (query *gorm.DB, order Order, id string) {
	query, order, id = db.Table("agents"), q.Order, "agents.id"
	if q.Capability != "" {
		query, id = db.Table("agent_capabilities AS c").Where("c.capability = ?", normalizeCapability(q.Capability)), "c.agent_id"
		if order.Column != "" {
			order.Column = "c." + order.Column
		}
	}
	if q.MaxPrice != nil && q.Order.Column == ByPrice {
		query = query.Where(order.Column+" <= ?", *q.MaxPrice)
	}
	return query, order, id
}

// agents returns the query of index with the rows of the agents.
func (q AgentQuery) agents(db *gorm.DB) (query *gorm.DB, order Order, id string) {
	query, order, id = q.index(db)
	if q.Capability != "" {
		query = query.Table("agent_capabilities AS c CROSS JOIN agents").Where("agents.id = c.agent_id")
	}
	return query, order, id
}

// agentFilters returns the conditions that the index of the list does not serve.
// INVALID_INPUT for an invalid condition.
func (m *Market) agentFilters(q AgentQuery) ([]filter, error) {
	if err := checkText("filter", q.Capability+q.Search, 0, maxDescription); err != nil {
		return nil, err
	}
	filters, err := m.searchFilters(q.Search, "agents", "agent_words", "agent_id")
	if err != nil {
		return nil, err
	}
	if q.MaxPrice != nil && q.Order.Column != ByPrice {
		filters = append(filters, filter{condition: "+agents.price_per_task <= ?", args: []any{*q.MaxPrice}, ids: q.idsByPrice})
	}
	if len(q.Modes) > 0 {
		filters = append(filters, filter{condition: modeFilter + " IN ?", args: []any{q.Modes}, ids: q.idsByMode})
	}
	return filters, nil
}

// idsByPrice selects the agents with the maximum price.
func (q AgentQuery) idsByPrice(db *gorm.DB, _ int) *gorm.DB {
	byPrice := q
	byPrice.Order = Order{Column: ByPrice, Ascending: true}
	query, order, id := byPrice.index(db)
	return order.sort(query.Select(id+" AS id"), id)
}

// idsByMode selects the agents with one of the modes.
func (q AgentQuery) idsByMode(db *gorm.DB, limit int) *gorm.DB {
	var queries []*gorm.DB
	for _, mode := range q.Modes {
		queries = append(queries, db.Session(&gorm.Session{NewDB: true}).Table("agents").Select("id").Where(modeExpression+" = ?", mode).Limit(limit))
	}
	return db.Table("(?) AS found", unionAll(db.Session(&gorm.Session{NewDB: true}), queries)).Select("id")
}

// ListAgents returns a page of agents. With a search, or another filter that the order's
// index does not serve, a page can be short although others follow it. INVALID_INPUT for an
// invalid filter or cursor.
func (m *Market) ListAgents(ctx context.Context, q AgentQuery, page Page) (ListResult[models.Agent], error) {
	filters, err := m.agentFilters(q)
	if err != nil {
		return ListResult[models.Agent]{}, err
	}
	return readBounded(ctx, m, len(filters) > 0, func(ctx context.Context) (ListResult[models.Agent], error) {
		return m.listAgents(ctx, q, filters, page)
	})
}

func (m *Market) listAgents(ctx context.Context, q AgentQuery, filters []filter, page Page) (ListResult[models.Agent], error) {
	ids, few, err := m.findIDs(ctx, filters)
	if err != nil {
		return ListResult[models.Agent]{}, err
	}
	query, order, id := q.agents(m.deps.DB.Read(ctx))
	var end *horizon
	switch {
	case few:
		order, id = q.Order, "agents.id"
		query, err = m.agentsByID(ctx, q, filters, ids)
	case len(filters) > 0:
		end, err = m.agentHorizon(ctx, q, page)
		query = order.until(applyFilters(query, filters), id, end)
	}
	if err != nil {
		return ListResult[models.Agent]{}, err
	}
	if query, err = order.paginate(query, id, page); err != nil {
		return ListResult[models.Agent]{}, err
	}
	var agents []models.Agent
	err = query.Select(agentColumns).Find(&agents).Error
	result := newListResult(agents, page)
	q.Order.shorten(&result.HasMore, &result.End, end)
	return result, err
}

// agentsByID returns a query of the agents with the given ids that match q.
func (m *Market) agentsByID(ctx context.Context, q AgentQuery, filters []filter, ids []string) (*gorm.DB, error) {
	query, err := m.fromIDs(ctx, "agents", ids)
	if err != nil {
		return nil, err
	}
	if q.Capability != "" {
		query = query.Where("EXISTS (SELECT 1 FROM agent_capabilities c WHERE c.capability = ? AND c.agent_id = agents.id)", normalizeCapability(q.Capability))
	}
	if q.MaxPrice != nil {
		query = query.Where("agents.price_per_task <= ?", *q.MaxPrice)
	}
	return applyFilters(query, filters), nil
}

// agentHorizon returns where the walk of a page of q ends.
func (m *Market) agentHorizon(ctx context.Context, q AgentQuery, page Page) (*horizon, error) {
	walk, order, id := q.index(m.deps.DB.Read(ctx))
	walk, err := order.startAfter(walk.Select(order.horizonColumns(id)), id, page)
	if err != nil {
		return nil, err
	}
	return m.findHorizon(ctx, order, []*gorm.DB{order.sort(walk, id)})
}

// CountAgents returns the number of agents that match the query. A count is not exact above
// a limit, and for a walk that does not read all rows.
func (m *Market) CountAgents(ctx context.Context, q AgentQuery) (Count, error) {
	q.Order = Order{}
	if q.MaxPrice != nil { // served by the index of this order
		q.Order = Order{Column: ByPrice, Ascending: true}
	}
	filters, err := m.agentFilters(q)
	if err != nil {
		return Count{}, err
	}
	return readBounded(ctx, m, true, func(ctx context.Context) (Count, error) { return m.countAgents(ctx, q, filters) })
}

func (m *Market) countAgents(ctx context.Context, q AgentQuery, filters []filter) (Count, error) {
	ids, few, err := m.findIDs(ctx, filters)
	if err != nil {
		return Count{}, err
	}
	if few {
		query, err := m.agentsByID(ctx, q, filters, ids)
		if err != nil {
			return Count{}, err
		}
		return m.countRows(ctx, []*gorm.DB{query}, nil)
	}
	query, order, id := q.agents(m.deps.DB.Read(ctx))
	if len(filters) == 0 {
		query, order, id = q.index(m.deps.DB.Read(ctx))
	}
	var end *horizon
	if len(filters) > 0 {
		if end, err = m.agentHorizon(ctx, q, Page{}); err != nil {
			return Count{}, err
		}
	}
	return m.countRows(ctx, []*gorm.DB{order.sort(order.until(applyFilters(query, filters), id, end), id)}, end)
}
