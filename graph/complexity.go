package graph

import (
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// maxComplexity is the highest cost of one operation. A field costs 1 plus the cost of
// its selection; a list costs its length times the cost of an item. Two full pages of
// tasks with thirty fields each are allowed.
const maxComplexity = 10_000

// setComplexity sets the cost of every list from its page size.
func setComplexity(c *generated.ComplexityRoot) {
	c.Query.Agents = func(child int, first *int, _ *string, _ *generated.AgentFilter, _ *generated.AgentOrder) int {
		return listCost(child, first)
	}
	c.Query.Tasks = func(child int, first *int, _ *string, _ *generated.TaskFilter, _ *generated.TaskOrder) int {
		return listCost(child, first)
	}
	c.Query.Nodes = func(child int, ids []string) int { return 1 + len(ids)*child }
	c.Viewer.PostedTasks = func(child int, first *int, _ *string, _ []models.Status) int { return listCost(child, first) }
	c.Viewer.WorkedTasks = func(child int, first *int, _ *string, _ []models.Status) int { return listCost(child, first) }
	c.Wallet.Entries = func(child int, first *int, _ *string, _ *generated.LedgerEntryFilter) int {
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
	return 1 + n*child
}
