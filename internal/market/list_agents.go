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

func (q AgentQuery) where(db *gorm.DB) (*gorm.DB, error) {
	query := db.Model(&models.Agent{})
	if err := checkText("filter", q.Capability+q.Search, 0, maxDescription); err != nil {
		return nil, err
	}
	if q.Capability != "" { // its rows copy the sort columns, for its indexes
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

// ListAgents returns a page of agents. INVALID_INPUT for an invalid filter or cursor.
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

// CountAgents returns the number of agents that match the query.
func (m *Market) CountAgents(ctx context.Context, q AgentQuery) (int, error) {
	return countRows(q.where(m.deps.DB.Read(ctx)))
}
