package market_test

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"gorm.io/gorm"

	"agentmarket.space/server/database"
	"agentmarket.space/server/internal/engines"
	"agentmarket.space/server/internal/markettest"
	"agentmarket.space/server/market"
	"agentmarket.space/server/models"
	"agentmarket.space/server/webhooks"
)

// TestPlans: every read of the market finds its rows by an index, and in order,
// so that it costs the same however much there is. The statements are those that
// run, and what SQLite says of them.
func TestPlans(t *testing.T) {
	t.Parallel()
	b := markettest.NewAt(t, engines.SQLite(t))
	agent := b.Agent("x")
	task := b.Posted(agent, 10, "x")
	seen := watch(t, b)
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
	_, err = b.Epoch(t.Context())
	must(t, err)
	b.Clock.Advance(30 * 24 * time.Hour)
	must(t, b.Sweep(t.Context()))

	seen.check(t, b, 20)
}

// TestPlans_notices: so do those who follow what happens and are told of it.
func TestPlans_notices(t *testing.T) {
	t.Parallel()
	b := markettest.NewAt(t, engines.SQLite(t))
	agent := b.Agent("x")
	task := b.Posted(agent, 10, "x")
	posted := firstPosted(t, b)
	hooks := webhooks.New(webhooks.Options{DB: b.DB, Box: b.Box, Now: b.Clock.Now, Logger: b.Logger})
	seen := watch(t, b)

	for _, status := range [][]models.DeliveryStatus{nil, {models.DeliveryFailed}} {
		for _, after := range []string{"", task.ID} {
			_, err := hooks.Deliveries(t.Context(), agent.AgentID, status, 20, after)
			must(t, err)
		}
	}
	_, err := hooks.Attempts(t.Context(), task.ID, agent.AgentID)
	must(t, err)
	_, err = hooks.Get(t.Context(), agent.AgentID)
	wantCode(t, err, models.NotFound)
	must(t, hooks.Start(t.Context()))
	must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		tx.Enqueue(webhooks.MatchArgs{EventID: posted, TaskID: task.ID}, nil)
		return nil
	}))
	seen.until(t, "FROM `webhooks` WHERE (agent_id > ")
	must(t, hooks.Stop(t.Context()))
	followed := b.Log.Subscribe(t.Context(), func(*models.Event) bool { return true }, new(int64))
	<-followed.C

	seen.check(t, b, 10)
}

// firstPosted returns the cursor of the first task that was posted.
func firstPosted(t *testing.T, b *markettest.Bundle) (seq int64) {
	t.Helper()
	must(t, b.DB.Read(t.Context()).Model(&models.Event{}).Where("kind = ?", models.TaskPosted).Limit(1).Pluck("seq", &seq).Error)
	return seq
}

// statements are what was read from a store, and with which values.
type statements struct {
	mu   sync.Mutex
	vars map[string][]any
}

// watch keeps what is read from now on.
func watch(t *testing.T, b *markettest.Bundle) *statements {
	t.Helper()
	s := &statements{vars: map[string][]any{}}
	keep := func(db *gorm.DB) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if statement := db.Statement.SQL.String(); !strings.HasPrefix(statement, "EXPLAIN") {
			s.vars[statement] = append([]any{}, db.Statement.Vars...)
		}
	}
	callbacks := b.DB.Read(t.Context()).Callback()
	must(t, callbacks.Query().After("gorm:query").Register("test:keep", keep))
	must(t, callbacks.Row().After("gorm:row").Register("test:keep", keep))
	return s
}

// all returns what was read so far.
func (s *statements) all() map[string][]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.vars)
}

// until waits for a statement that holds part.
func (s *statements) until(t *testing.T, part string) {
	t.Helper()
	ticker, late := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer ticker.Stop()
	for {
		for statement := range s.all() {
			if strings.Contains(statement, part) {
				return
			}
		}
		select {
		case <-ticker.C:
		case <-late:
			t.Fatalf("nothing read %q", part)
		}
	}
}

// check asks SQLite for the plan of each statement, of which there are some.
func (s *statements) check(t *testing.T, b *markettest.Bundle, atLeast int) {
	t.Helper()
	all := s.all()
	if len(all) < atLeast {
		t.Errorf("only %d statements were seen", len(all))
	}
	for statement, vars := range all {
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
	case !strings.HasPrefix(step, "SCAN"), strings.HasPrefix(step, "SCAN part"), step == "SCAN overdue", step == "SCAN CONSTANT ROW":
		return false
	default: // but in the order of the list, to its limit
		return !strings.Contains(step, "USING INDEX") || !strings.Contains(statement, "LIMIT")
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
