package graph

import (
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// maxComplexity is what one operation may cost: a field costs 1 and what is
// below it, a list that many times what one item costs. Two full pages of tasks
// with thirty fields each pass.
const maxComplexity = 10_000

// setComplexity makes every list cost by how much it returns.
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

// listCost is what a list costs. A page that is too large is refused later on;
// here it must not overflow and take away from what the rest costs.
func listCost(child int, first *int) int {
	n := defaultPageSize
	if first != nil {
		n = min(max(*first, 1), market.MaxPageSize)
	}
	return 1 + n*child
}
