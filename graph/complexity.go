package graph

import (
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// maxComplexity is the highest cost of one operation. A field costs 1 plus the cost of
// its selection; a list costs its length times the cost of an item, and what it costs in
// the store. Two full pages of tasks with thirty fields each are allowed, with their counts.
const maxComplexity = 10_000

// The costs of statements, in fields. Measured with a million tasks: a page takes a
// millisecond in the store, and a page with a filter or a count up to 40.
const (
	pageCost     = 10
	filteredCost = 400
	countCost    = 400
)

// setComplexity sets the cost of every list from its page size.
func setComplexity(c *generated.ComplexityRoot) {
	c.Query.Agents = func(child int, first *int, _ *string, filter *generated.AgentFilter, _ *generated.AgentOrder) int {
		q := agentQuery(filter, nil)
		return filteredListCost(child, first, q.Search != "" || q.MaxPrice != nil || len(q.Modes) > 0)
	}
	c.Query.Tasks = func(child int, first *int, _ *string, filter *generated.TaskFilter, order *generated.TaskOrder) int {
		q := taskQuery(filter, order)
		return filteredListCost(child, first, q.Search != "" || q.MinBudget != nil || q.Capability != "" && q.Order.Column != "")
	}
	c.TaskConnection.TotalCount = func(int) int { return countCost }
	c.AgentConnection.TotalCount = c.TaskConnection.TotalCount
	c.TaskConnection.TotalCountIsExact = c.TaskConnection.TotalCount
	c.AgentConnection.TotalCountIsExact = c.TaskConnection.TotalCount
	c.Webhook.PendingCount, c.Webhook.FailedCount = c.TaskConnection.TotalCount, c.TaskConnection.TotalCount
	c.Query.Nodes = func(child int, ids []string) int { return 1 + len(ids)*child }
	c.Viewer.PostedTasks = func(child int, first *int, _ *string, _ []models.Status) int { return listCost(child, first) }
	c.Viewer.WorkedTasks = func(child int, first *int, _ *string, _ []models.Status) int { return listCost(child, first) }
	c.Wallet.Entries = func(child int, first *int, _ *string, filter *generated.LedgerEntryFilter) int {
		return filteredListCost(child, first, filter != nil)
	}
	c.Webhook.Deliveries = func(child int, first *int, _ *string, _ []models.DeliveryStatus) int { return listCost(child, first) }
}

// listCost returns the cost of a list. It clamps the page size, which is validated later,
// so that the cost cannot overflow or become negative.
func listCost(child int, first *int) int {
	n := defaultPageSize
	if first != nil {
		n = min(max(*first, 1), market.MaxPageSize)
	}
	return pageCost + n*child
}

// filteredListCost is listCost for a list that can have a filter which the index of its
// order does not serve.
func filteredListCost(child int, first *int, filtered bool) int {
	if filtered {
		return filteredCost + listCost(child, first)
	}
	return listCost(child, first)
}
