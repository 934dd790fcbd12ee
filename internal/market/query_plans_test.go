package market_test

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// TestQueryPlans: every read of the market finds its rows in order by an index, so that its
// cost does not depend on the size of the tables. The test records the statements and
// asks the database for their plans.
func TestQueryPlans(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.NewAgent("x")
	task := b.NewTask(agent, 10, "x")
	recorder := recordStatements(t, b)
	for _, query := range taskQueries(agent.AgentID) {
		for _, page := range []market.Page{{First: 20}, {First: 20, After: query.Cursor(&task)}} {
			_, err := b.ListTasks(t.Context(), query, page)
			testutil.Must(t, err)
		}
	}
	for _, order := range []market.Order{{}, {Column: market.ByReputation}, {Column: market.ByPrice, Ascending: true}} {
		for _, capability := range []string{"", "x"} {
			_, err := b.ListAgents(t.Context(), market.AgentQuery{Capability: capability, Order: order}, market.Page{First: 20})
			testutil.Must(t, err)
		}
	}
	_, err := b.ListEntries(t.Context(), market.EntryQuery{AgentID: agent.AgentID}, market.Page{First: 20})
	testutil.Must(t, err)
	_, err = b.Task(t.Context(), "", task.ID)
	testutil.Must(t, err)
	_, err = b.NextDeadline(t.Context(), models.NewTime(b.Clock.Now()))
	testutil.Must(t, err)
	_, err = b.Keys.Authenticate(t.Context(), "unknown")
	wantCode(t, err, models.Unauthenticated)
	_, _, err = ledger.Totals(b.DB.Read(t.Context()))
	testutil.Must(t, err)
	b.Clock.Advance(30 * 24 * time.Hour)
	testutil.Must(t, b.Sweep(t.Context()))
	b.Settings.EventRetention = 24 * time.Hour
	mustPrune(t, b)

	recorder.checkPlans(t, b, 40)
}

// TestQueryPlans_filters is TestQueryPlans for every combination of filters and orders,
// whether the rows are found by the index of a filter or by a walk.
func TestQueryPlans_filters(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.NewAgent("common")
	task := b.NewTask(agent, 10, "common")
	recorder := recordStatements(t, b)
	for _, bounds := range listStrategies() {
		b.SetListBounds(bounds[0], bounds[1], bounds[2])
		for _, q := range allTaskQueries() {
			for _, page := range []market.Page{{First: 20}, {First: 20, After: q.Cursor(&task)}} {
				_, err := b.ListTasks(t.Context(), q, page)
				testutil.Must(t, err)
			}
			_, err := b.CountTasks(t.Context(), q)
			testutil.Must(t, err)
		}
		for _, q := range allAgentQueries() {
			_, err := b.ListAgents(t.Context(), q, market.Page{First: 20})
			testutil.Must(t, err)
			_, err = b.CountAgents(t.Context(), q)
			testutil.Must(t, err)
		}
	}
	for _, kinds := range [][]models.TransferKind{nil, {models.Payout}, {models.Hold, models.Hire}} {
		for _, taskID := range []string{"", task.ID} {
			_, err := b.ListEntries(t.Context(), market.EntryQuery{AgentID: agent.AgentID, Kinds: kinds, TaskID: taskID}, market.Page{First: 20})
			testutil.Must(t, err)
		}
	}

	recorder.checkPlans(t, b, 500)
}

// TestQueryPlans_webhooksAndEvents is TestQueryPlans for webhooks and the event log.
func TestQueryPlans_webhooksAndEvents(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.NewAgent("x")
	task := b.NewTask(agent, 10, "x")
	posted := firstPostedEventID(t, b)
	hooks := webhooks.New(webhooks.Options{DB: b.DB, Cipher: b.Cipher, Now: b.Clock.Now, Retention: time.Hour, Logger: b.Logger})
	recorder := recordStatements(t, b)

	for _, status := range [][]models.DeliveryStatus{nil, {models.DeliveryFailed}, {models.DeliveryPending, models.DeliveryFailed}} {
		for _, after := range []string{"", task.ID} {
			_, err := hooks.Deliveries(t.Context(), agent.AgentID, status, 20, after)
			testutil.Must(t, err)
		}
	}
	_, err := hooks.Attempts(t.Context(), task.ID, agent.AgentID)
	testutil.Must(t, err)
	_, err = hooks.Get(t.Context(), agent.AgentID)
	wantCode(t, err, models.NotFound)
	_, err = hooks.CountDeliveries(t.Context(), agent.AgentID, models.DeliveryFailed)
	testutil.Must(t, err)
	_, _, err = hooks.FailedDeliveries(t.Context(), agent.AgentID, models.FailedDeliveryQuery{Until: new(models.NewTime(b.Clock.Now())), First: 20})
	testutil.Must(t, err)
	testutil.Must(t, hooks.Prune(t.Context()))
	_, err = hooks.OldestNeeded(t.Context())
	testutil.Must(t, err)
	testutil.Must(t, hooks.Start(t.Context()))
	testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		tx.Enqueue(webhooks.MatchArgs{EventID: posted, TaskID: task.ID, Event: models.WebhookTaskPosted}, nil)
		tx.Enqueue(webhooks.MatchArgs{EventID: posted, TaskID: task.ID, Event: models.WebhookTaskAssigned, PosterID: agent.AgentID}, nil)
		return nil
	}))
	recorder.waitFor(t, "has_webhook = 1")
	recorder.waitFor(t, "events LIKE")
	testutil.Must(t, hooks.Stop(t.Context()))
	_, err = b.DB.AssignCursors(t.Context(), false)
	testutil.Must(t, err)
	everything := events.Interest{Topics: []events.Topic{events.AllEventsTopic()}, Filter: func(*models.Event) bool { return true }}
	feed := b.Log.OpenFeed(everything, new(int64), func(*models.Event) {})
	defer feed.Close()
	_, err = feed.Next(t.Context()) // reads the first page of the log
	testutil.Must(t, err)

	recorder.checkPlans(t, b, 13)
}

// TestQueryPlans_detectsSlowSteps: the check finds table scans and sorts.
func TestQueryPlans_detectsSlowSteps(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	for _, statement := range []string{
		"SELECT id FROM tasks WHERE title = 'x'", "SELECT id FROM tasks ORDER BY title LIMIT 20",
		"SELECT id FROM tasks WHERE status = 'open' ORDER BY title LIMIT 20",
	} {
		plan := queryPlan(t, b, statement, nil)
		if !slices.ContainsFunc(plan, func(step string) bool { return isSlowStep(statement, step) }) {
			t.Errorf("no slow step found in the plan of %s: %q", statement, plan)
		}
	}
}

// firstPostedEventID returns the id of the first task.posted event.
func firstPostedEventID(t *testing.T, b *markettest.Bundle) (id int64) {
	t.Helper()
	testutil.Must(t, b.DB.Read(t.Context()).Model(&models.Event{}).Where("kind = ?", models.TaskPosted).Limit(1).Pluck("id", &id).Error)
	return id
}

// statementRecorder records the read statements of a database and their variables.
type statementRecorder struct {
	mu   sync.Mutex
	vars map[string][]any
}

// recordStatements records all reads from now on.
func recordStatements(t *testing.T, b *markettest.Bundle) *statementRecorder {
	t.Helper()
	s := &statementRecorder{vars: map[string][]any{}}
	record := func(db *gorm.DB) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if statement := db.Statement.SQL.String(); !db.DryRun && !strings.HasPrefix(statement, "EXPLAIN") { // subqueries are built in dry runs
			s.vars[statement] = append([]any{}, db.Statement.Vars...)
		}
	}
	callbacks := b.DB.Read(t.Context()).Callback()
	testutil.Must(t, callbacks.Query().After("gorm:query").Register("test:record", record))
	testutil.Must(t, callbacks.Row().After("gorm:row").Register("test:record", record))
	return s
}

// all returns the statements so far.
func (s *statementRecorder) all() map[string][]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.vars)
}

// waitFor waits for a statement that contains part.
func (s *statementRecorder) waitFor(t *testing.T, part string) {
	t.Helper()
	testutil.Eventually(t, "a statement with "+part, func() bool {
		for statement := range s.all() {
			if strings.Contains(statement, part) {
				return true
			}
		}
		return false
	})
}

// checkPlans checks the plan of each statement, of which there must be a minimum.
func (s *statementRecorder) checkPlans(t *testing.T, b *markettest.Bundle, atLeast int) {
	t.Helper()
	all := s.all()
	if len(all) < atLeast {
		t.Errorf("recorded %d statements, want at least %d", len(all), atLeast)
	}
	for statement, vars := range all {
		plan := queryPlan(t, b, statement, vars)
		for _, step := range plan {
			if isSlowStep(statement, step) {
				t.Errorf("%s\nin the plan of\n%s\n%s", step, statement, strings.Join(plan, "\n"))
			}
		}
	}
}

// queryPlan returns the steps of a plan. On PostgreSQL it disables scans and sorts where an
// index can be used, because the planner prefers them for the small tables of a test.
func queryPlan(t *testing.T, b *markettest.Bundle, statement string, vars []any) (plan []string) {
	t.Helper()
	explain, column := "EXPLAIN QUERY PLAN ", 3
	if services.OnPostgres() {
		explain, column = "EXPLAIN ", 0
	}
	testutil.Must(t, b.DB.Read(t.Context()).Transaction(func(tx *gorm.DB) error {
		if services.OnPostgres() {
			if err := tx.Exec("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off").Error; err != nil {
				return err
			}
		}
		rows, err := tx.Statement.ConnPool.QueryContext(t.Context(), explain+statement, vars...)
		if err != nil {
			return err
		}
		defer rows.Close() //nolint:errcheck // read to the end or failed
		for rows.Next() {
			step := make([]any, column+1)
			for i := range step {
				step[i] = new(any)
			}
			var text string
			step[column] = &text
			if err := rows.Scan(step...); err != nil {
				return err
			}
			plan = append(plan, text)
		}
		return rows.Err()
	}))
	return plan
}

// taskQueries returns the task lists that clients use.
func taskQueries(agentID string) []market.TaskQuery {
	var all []market.TaskQuery
	for _, status := range append([][]models.Status{nil, {models.Open, models.Assigned}, models.Statuses()}, singleStatuses()...) {
		all = append(all,
			market.TaskQuery{Status: status}, market.TaskQuery{Status: status, Order: market.Order{Ascending: true}},
			market.TaskQuery{Status: status, Capability: "x"}, market.TaskQuery{Status: status, Order: market.Order{Column: market.ByBudget}},
			market.TaskQuery{Status: status, PosterID: agentID}, market.TaskQuery{Status: status, WorkerID: agentID})
	}
	return all
}

func singleStatuses() (all [][]models.Status) {
	for _, status := range models.Statuses() {
		all = append(all, []models.Status{status})
	}
	return all
}

// isSlowStep reports whether the cost of a step grows with the size of the tables.
func isSlowStep(statement, step string) bool {
	// The queries of a union return one page each, few tasks are overdue, and the ids of an
	// array are few.
	merged := strings.Contains(statement, "UNION") || strings.Contains(statement, "overdue") ||
		strings.Contains(statement, "json_each(") || strings.Contains(statement, "json_array_elements_text(")
	step = strings.TrimLeft(step, " ->")
	switch {
	case strings.HasPrefix(step, "Seq Scan"): // there are few processes
		return !strings.HasPrefix(step, "Seq Scan on replicas")
	case strings.HasPrefix(step, "Sort  "), strings.HasPrefix(step, "Incremental Sort"), strings.Contains(step, "TEMP B-TREE"):
		return !merged
	case !strings.HasPrefix(step, "SCAN"), strings.HasPrefix(step, "SCAN part"), strings.HasPrefix(step, "SCAN first"),
		strings.HasPrefix(step, "SCAN found"), step == "SCAN limited", step == "SCAN counted",
		step == "SCAN overdue", step == "SCAN turns", step == "SCAN CONSTANT ROW":
		return false
	default: // a scan in the order of the list stops at its limit
		return !strings.Contains(step, "USING INDEX") && !strings.Contains(step, "USING COVERING INDEX") || !strings.Contains(statement, "LIMIT")
	}
}
