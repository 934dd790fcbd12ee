package market_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/markettest"
	"agentmarket.space/server/market"
	"agentmarket.space/server/models"
)

// TestPlans: every read of the market finds its rows by an index, and in order,
// so that it costs the same however much there is. The statements are those that
// run, and what SQLite says of them.
func TestPlans(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.Agent("x")
	task := b.Posted(agent, 10, "x")
	var mu sync.Mutex
	statements := map[string][]any{}
	keep := func(db *gorm.DB) {
		mu.Lock()
		defer mu.Unlock()
		if statement := db.Statement.SQL.String(); !strings.HasPrefix(statement, "EXPLAIN") {
			statements[statement] = append([]any{}, db.Statement.Vars...)
		}
	}
	callbacks := b.DB.Read(t.Context()).Callback()
	must(t, callbacks.Query().After("gorm:query").Register("test:keep", keep))
	must(t, callbacks.Row().After("gorm:row").Register("test:keep", keep))

	for _, query := range taskQueries(agent.AgentID) {
		for _, page := range []market.Page{{First: 20}, {First: 20, After: query.Cursor(&task)}} {
			_, err := b.ListTasks(t.Context(), query, page)
			must(t, err)
		}
	}
	for _, order := range []market.Order{{}, {Column: market.ByReputation}, {Column: market.ByPrice, Ascending: true}} {
		for _, capability := range []string{"", "x"} {
			_, err := b.ListAgents(t.Context(), market.AgentQuery{Capability: capability, Order: order}, market.Page{First: 20})
			must(t, err)
		}
	}
	_, err := b.ListEntries(t.Context(), market.EntryQuery{AgentID: agent.AgentID}, market.Page{First: 20})
	must(t, err)
	_, err = b.Task(t.Context(), "", task.ID)
	must(t, err)
	b.Clock.Advance(30 * 24 * time.Hour)
	must(t, b.Sweep(t.Context()))

	if len(statements) < 20 {
		t.Errorf("only %d statements were seen", len(statements))
	}
	for statement, vars := range statements {
		var plan []struct{ Detail string }
		must(t, b.DB.Read(t.Context()).Raw("EXPLAIN QUERY PLAN "+statement, vars...).Scan(&plan).Error)
		for _, step := range plan {
			if slow(statement, step.Detail) {
				t.Errorf("%s\nin the plan of\n%s\n%v", step.Detail, statement, plan)
			}
		}
	}
}

// taskQueries are the lists of tasks that clients ask for.
func taskQueries(agentID string) []market.TaskQuery {
	var all []market.TaskQuery
	for _, status := range append([][]models.Status{nil, {models.Open, models.Assigned}, models.Statuses()}, statusByStatus()...) {
		all = append(all,
			market.TaskQuery{Status: status}, market.TaskQuery{Status: status, Order: market.Order{Ascending: true}},
			market.TaskQuery{Status: status, Capability: "x"},
			market.TaskQuery{Status: status, PosterID: agentID}, market.TaskQuery{Status: status, WorkerID: agentID})
	}
	return append(all, market.TaskQuery{Order: market.Order{Column: market.ByBudget}})
}

func statusByStatus() (all [][]models.Status) {
	for _, status := range models.Statuses() {
		all = append(all, []models.Status{status})
	}
	return all
}

// slow reports whether a step of a plan grows with the store.
func slow(statement, step string) bool {
	switch {
	case strings.Contains(step, "TEMP B-TREE"):
		// parts of a list are merged a page at a time, what is overdue is few, and
		// of the agents with a capability the best are sorted out
		return !strings.Contains(statement, "UNION ALL") && !strings.Contains(statement, "overdue") && !strings.Contains(statement, "agent_capabilities")
	case strings.HasPrefix(step, "SCAN part"), step == "SCAN overdue":
		return false
	case strings.Contains(step, "USING INDEX"): // in the order of the list, to its limit
		return !strings.Contains(statement, "LIMIT")
	default:
		return strings.HasPrefix(step, "SCAN")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
