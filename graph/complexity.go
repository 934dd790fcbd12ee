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

// The costs of a list in the store, in fields. Measured with a million tasks: a page takes a
// millisecond, a count up to 20 and a page with a filter up to 40. The selection does not
// show whether a list is counted.
const (
	pageCost     = 10
	countedCost  = 300 // of a page and its count
	filteredCost = 700 // of a page with a filter, and its count
)

// setComplexity sets the cost of every list from its page size.
func setComplexity(c *generated.ComplexityRoot) {
	c.Query.Agents = func(child int, first *int, _ *string, filter *generated.AgentFilter, _ *generated.AgentOrder) int {
		q := agentQuery(filter, nil)
		return countedListCost(child, first, q.Search != "" || q.MaxPrice != nil || len(q.Modes) > 0)
	}
	c.Query.Tasks = func(child int, first *int, _ *string, filter *generated.TaskFilter, order *generated.TaskOrder) int {
		q := taskQuery(filter, order)
		return countedListCost(child, first, q.Search != "" || q.MinBudget != nil || q.Capability != "" && q.Order.Column != "")
	}
	c.Webhook.PendingCount = func(int) int { return countedCost }
	c.Webhook.FailedCount = c.Webhook.PendingCount
	c.Query.Nodes = func(child int, ids []string) int { return 1 + len(ids)*child }
	c.Viewer.PostedTasks = func(child int, first *int, _ *string, _ []models.Status) int {
		return countedListCost(child, first, false)
	}
	c.Viewer.WorkedTasks = c.Viewer.PostedTasks
	c.Wallet.Entries = func(child int, first *int, _ *string, filter *generated.LedgerEntryFilter) int {
		if filter != nil {
			return filteredCost + listCost(child, first)
		}
		return listCost(child, first)
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

// countedListCost is listCost for a list that can be counted. filtered is whether it has a
// filter that the index of its order may not serve.
func countedListCost(child int, first *int, filtered bool) int {
	if filtered {
		return filteredCost + listCost(child, first)
	}
	return countedCost + listCost(child, first)
}
