package market_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// BenchmarkGrowth measures the operations and lists for one caller in markets of 100 and
// 10,000 tasks, and of the number in AGENTMARKET_TEST_GROWTH:
//
//	AGENTMARKET_TEST_GROWTH=1000000 go test -run '^$' -bench Growth -benchtime 200x ./internal/market
func BenchmarkGrowth(b *testing.B) {
	sizes := []int{100, 10_000}
	if n, err := strconv.Atoi(os.Getenv("AGENTMARKET_TEST_GROWTH")); err == nil {
		sizes = append(sizes, n)
	}
	for _, tasks := range sizes {
		b.Run(strconv.Itoa(tasks), func(b *testing.B) {
			g := newLargeMarket(b, tasks)
			for _, step := range g.steps() {
				b.Run(step.name, func(b *testing.B) { step.measure(b) })
			}
			g.VerifyLedger()
		})
	}
}

// largeMarket is a market with a history. Of 20 tasks 18 are completed, one is cancelled
// and one is open. There is one agent for ten tasks, and the first agent posted every
// tenth task. All agents and tasks have the capability common, a few have rare.
type largeMarket struct {
	*markettest.Bundle
	hooks          *webhooks.Webhooks
	firstAgent     auth.Actor
	poster, worker auth.Actor
}

// benchStep is a measured operation. prepare, which is not measured, returns its id.
type benchStep struct {
	name    string
	prepare func() string
	run     func(ctx context.Context, id string) error
}

// measure reports the median, which other load on the machine affects little.
func (s benchStep) measure(b *testing.B) {
	b.Helper()
	durations := make([]time.Duration, b.N)
	for i := range durations {
		id := ""
		if s.prepare != nil {
			id = s.prepare()
		}
		start := time.Now()
		if err := s.run(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		durations[i] = time.Since(start)
	}
	slices.Sort(durations)
	b.ReportMetric(float64(durations[len(durations)/2].Microseconds()), "p50-µs")
}

func (g *largeMarket) steps() []benchStep {
	posted := func() string { return g.NewTask(g.poster, 2, "common").ID }
	accepted := func() string {
		id := posted()
		_, err := g.Accept(g.T.Context(), g.worker, id)
		testutil.Must(g.T, err)
		return id
	}
	completed := func() string {
		id := accepted()
		_, err := g.Complete(g.T.Context(), g.worker, id, "done")
		testutil.Must(g.T, err)
		return id
	}
	tasks := func(q market.TaskQuery) func(context.Context, string) error {
		return func(ctx context.Context, _ string) error {
			_, err := g.ListTasks(ctx, q, market.Page{First: 20})
			return err
		}
	}
	agents := func(q market.AgentQuery) func(context.Context, string) error {
		return func(ctx context.Context, _ string) error {
			_, err := g.ListAgents(ctx, q, market.Page{First: 20})
			return err
		}
	}
	open, cancelled := []models.Status{models.Open}, []models.Status{models.Cancelled}
	return []benchStep{
		{"register", nil, func(ctx context.Context, _ string) error {
			_, err := g.Register(ctx, market.RegisterAgentInput{Name: "A", Capabilities: []string{"common"}})
			return err
		}},
		{"post", nil, func(context.Context, string) error { posted(); return nil }},
		{"accept", posted, func(ctx context.Context, id string) error { _, err := g.Accept(ctx, g.worker, id); return err }},
		{"complete", accepted, func(ctx context.Context, id string) error {
			_, err := g.Complete(ctx, g.worker, id, "done")
			return err
		}},
		{"cancel", posted, func(ctx context.Context, id string) error { _, err := g.Cancel(ctx, g.poster, id); return err }},
		{"release", accepted, func(ctx context.Context, id string) error { _, err := g.Release(ctx, g.worker, id); return err }},
		{"rate", completed, func(ctx context.Context, id string) error {
			_, err := g.Rate(ctx, g.poster, market.RateTaskInput{TaskID: id, Score: 5})
			return err
		}},
		{"task", nil, func(ctx context.Context, _ string) error { _, err := g.Task(ctx, "", taskID(7)); return err }},
		{"key", nil, func(ctx context.Context, _ string) error {
			if _, err := g.Keys.Authenticate(ctx, "unknown"); models.CodeOf(err) != models.Unauthenticated {
				return err
			}
			return nil
		}},
		{"tasks", nil, tasks(market.TaskQuery{})},
		{"tasks_open", nil, tasks(market.TaskQuery{Status: open})},
		{"tasks_open_common", nil, tasks(market.TaskQuery{Status: open, Capability: "common"})},
		{"tasks_open_rare", nil, tasks(market.TaskQuery{Status: open, Capability: "rare"})},
		{"tasks_cancelled_rare", nil, tasks(market.TaskQuery{Status: cancelled, Capability: "rare"})},
		{"tasks_open_by_budget", nil, tasks(market.TaskQuery{Status: open, Order: market.Order{Column: market.ByBudget}})},
		{"tasks_by_budget", nil, tasks(market.TaskQuery{Order: market.Order{Column: market.ByBudget}})},
		{"tasks_posted_open", nil, tasks(market.TaskQuery{PosterID: g.firstAgent.AgentID, Status: open})},
		{"agents", nil, agents(market.AgentQuery{})},
		{"agents_common_by_reputation", nil, agents(market.AgentQuery{Capability: "common", Order: market.Order{Column: market.ByReputation}})},
		{"agents_common_by_price", nil, agents(market.AgentQuery{Capability: "common", Order: market.Order{Column: market.ByPrice, Ascending: true}})},
		{"agents_rare", nil, agents(market.AgentQuery{Capability: "rare"})},
		{"entries", nil, func(ctx context.Context, _ string) error {
			_, err := g.ListEntries(ctx, market.EntryQuery{AgentID: g.firstAgent.AgentID}, market.Page{First: 20})
			return err
		}},
		{"deliveries", nil, g.deliveries(nil)},
		{"deliveries_failed", nil, g.deliveries([]models.DeliveryStatus{models.DeliveryFailed})},
		{"totals", nil, func(ctx context.Context, _ string) error { _, _, err := ledger.Totals(g.DB.Read(ctx)); return err }},
		{"sweep", nil, func(ctx context.Context, _ string) error { return g.Sweep(ctx) }},
		{"prune_nothing", nil, func(ctx context.Context, _ string) error { return g.Prune(ctx) }},
	}
}

func (g *largeMarket) deliveries(status []models.DeliveryStatus) func(context.Context, string) error {
	return func(ctx context.Context, _ string) error {
		_, err := g.hooks.Deliveries(ctx, g.firstAgent.AgentID, status, 20, "")
		return err
	}
}

func agentID(i int) string { return fmt.Sprintf("01900000-0000-7000-8000-%012x", i) }

func taskID(i int) string { return fmt.Sprintf("01900000-0000-7000-9000-%012x", i) }

// newLargeMarket opens a SQLite market with a number of tasks. It writes the rows directly,
// without the triggers.
func newLargeMarket(b *testing.B, tasks int) *largeMarket {
	b.Helper()
	g := &largeMarket{Bundle: markettest.NewWithDatabase(b, services.SQLitePath(b))}
	g.hooks = webhooks.New(webhooks.Options{DB: g.DB, Cipher: g.Cipher, Now: g.Clock.Now, Logger: g.Logger})
	var triggers []string
	testutil.Must(b, g.DB.Read(b.Context()).Raw("SELECT sql FROM sqlite_master WHERE type = 'trigger'").Scan(&triggers).Error)
	fill := strings.NewReplacer(
		"AGENTS", strconv.Itoa(tasks/10), "TASKS", strconv.Itoa(tasks), "NOW", strconv.FormatInt(int64(models.NewTime(g.Clock.Now())), 10),
		"AGENT(", "printf('01900000-0000-7000-8000-%012x', ", "TASK(", "printf('01900000-0000-7000-9000-%012x', ")
	testutil.Must(b, g.DB.Write(b.Context(), func(tx *database.Tx) error {
		var drop []string
		if err := tx.Raw(services.DropTriggersQuery()).Scan(&drop).Error; err != nil {
			return err
		}
		for _, statement := range slices.Concat(drop, historyStatements(), triggers) {
			if err := tx.Exec(fill.Replace(statement)).Error; err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	}))
	g.Settings.StartingCredits = models.MaxBudget
	g.firstAgent, g.poster, g.worker = auth.Actor{AgentID: agentID(0)}, g.NewAgent("common"), g.NewAgent("common")
	g.VerifyLedger()
	return g
}

// historyStatements is the statements that write a market's past.
func historyStatements() []string {
	return []string{
		`CREATE TEMP TABLE n (i INTEGER PRIMARY KEY, poster TEXT, worker TEXT, task TEXT, status TEXT, budget INTEGER, at INTEGER)`,
		`WITH RECURSIVE s (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM s WHERE i + 1 < TASKS)
		INSERT INTO n SELECT i, AGENT(CASE i % 10 WHEN 0 THEN 0 ELSE i % AGENTS END), AGENT((CASE i % 10 WHEN 0 THEN 0 ELSE i END + 1) % AGENTS),
			TASK(i), CASE i % 20 WHEN 3 THEN 'open' WHEN 7 THEN 'cancelled' ELSE 'completed' END, 10 + i * 7919 % 1000, NOW - (TASKS - i) * 1000 FROM s`,
		`CREATE INDEX temp.n_worker ON n (worker, status)`,
		`INSERT INTO agents (id, name, description, capabilities, price_per_task, endpoint_url, system_prompt, owner_email, rating_sum, rating_count, completed_count, created_at)
		SELECT AGENT(i), 'Agent', '', '["common"]', 1 + i * 31 % 50, '', '', '', i * 7 % 5 + 1, 1,
			(SELECT COUNT(*) FROM n t WHERE t.worker = AGENT(n.i) AND t.status = 'completed'), at FROM n WHERE i < AGENTS`,
		`INSERT INTO agent_capabilities (capability, agent_id, reputation, price_per_task, has_webhook) SELECT 'common', id, reputation, price_per_task, id = AGENT(0) FROM agents
		UNION ALL SELECT 'rare', id, reputation, price_per_task, id = AGENT(0) FROM agents WHERE id < AGENT(5)`,
		`INSERT INTO webhooks (agent_id, url, events, status, updated_at) VALUES (AGENT(0), 'https://hook.example.com', '[]', 'active', 0)`,
		`INSERT INTO tasks (id, poster_id, worker_id, title, description, budget, capabilities, origin, status, attempt, lease_for, open_until, lease_until, result, created_at, accepted_at, completed_at, closed_at)
		SELECT task, poster, CASE status WHEN 'completed' THEN worker END, 'Task', 'Do it.', budget, '["common"]', 'marketplace', status, status = 'completed', 1,
			NOW + 86400000000, CASE status WHEN 'completed' THEN at END, CASE status WHEN 'completed' THEN 'done' END, at,
			CASE status WHEN 'completed' THEN at END, CASE status WHEN 'completed' THEN at END, CASE status WHEN 'cancelled' THEN at END FROM n`,
		`INSERT INTO task_capabilities (capability, task_id, status)
		SELECT 'common', task, status FROM n UNION ALL SELECT 'rare', task, status FROM n WHERE i < 60`,
		`CREATE TEMP TABLE moves (id TEXT, kind TEXT, debit TEXT, credit TEXT, amount INTEGER, task TEXT, agent TEXT, delta INTEGER, at INTEGER)`,
		`INSERT INTO moves SELECT 'grant:' || id, 'grant', 'issuance', 'available:' || id, 1000000000, NULL, id, 1000000000, 0 FROM agents`,
		`INSERT INTO moves SELECT 'hold:' || task, 'hold', 'available:' || poster, 'held:' || poster, budget, task, poster, -budget, at FROM n`,
		`INSERT INTO moves SELECT 'refund:' || task, 'refund', 'held:' || poster, 'available:' || poster, budget, task, poster, budget, at FROM n WHERE status = 'cancelled'`,
		`INSERT INTO moves SELECT 'escrow:' || task || ':1', 'escrow', 'held:' || poster, 'escrow:' || task, budget, task, NULL, 0, at FROM n WHERE status = 'completed'`,
		`INSERT INTO moves SELECT 'payout:' || task, 'payout', 'escrow:' || task, 'available:' || worker, budget * 90 / 100, task, worker, budget * 90 / 100, at FROM n WHERE status = 'completed'`,
		`INSERT INTO moves SELECT 'fee:' || task, 'fee', 'escrow:' || task, 'fees', budget - budget * 90 / 100, task, NULL, 0, at FROM n WHERE status = 'completed'`,
		`INSERT INTO transfers (seq, id, kind, debit_account, credit_account, amount, task_id, balance_after, created_at)
		SELECT rowid, id, kind, debit, credit, amount, task, CASE WHEN agent IS NOT NULL THEN SUM(delta) OVER (PARTITION BY agent ORDER BY rowid) END, at FROM moves ORDER BY rowid`,
		`INSERT INTO wallets (agent_id, available, held, last_seq)
		SELECT a.id, (SELECT SUM(delta) FROM (SELECT amount AS delta FROM transfers WHERE credit_account = 'available:' || a.id UNION ALL SELECT -amount FROM transfers WHERE debit_account = 'available:' || a.id)),
			COALESCE((SELECT SUM(delta) FROM (SELECT amount AS delta FROM transfers WHERE credit_account = 'held:' || a.id UNION ALL SELECT -amount FROM transfers WHERE debit_account = 'held:' || a.id)), 0),
			(SELECT MAX(seq) FROM transfers) FROM agents a`,
		`INSERT INTO events (kind, agent_id, transfer_id, created_at) SELECT 'wallet.changed', agent, id, at FROM moves WHERE agent IS NOT NULL`,
		`INSERT INTO events (kind, task_id, poster_id, created_at) SELECT 'task.posted', task, poster, at FROM n`,
		`INSERT INTO events (kind, task_id, poster_id, worker_id, created_at) SELECT 'task.' || status, task, poster, CASE status WHEN 'completed' THEN worker END, at FROM n WHERE status <> 'open'`,
		`INSERT INTO deliveries (id, agent_id, event_id, event, task_id, status, attempts, attempts_left, created_at)
		SELECT task, AGENT(0), (SELECT MAX(seq) FROM events) - TASKS + i, 'task.posted', task, CASE WHEN i < 5 THEN 'failed' ELSE 'delivered' END, 1, 0, at FROM n WHERE i % 2 = 0`,
		`UPDATE ledger_sums SET seq = (SELECT MAX(seq) FROM events), issued = (SELECT SUM(amount) FROM transfers WHERE kind = 'grant'),
			fees = (SELECT SUM(amount) FROM transfers WHERE kind = 'fee')`,
		`DROP TABLE moves`, `DROP TABLE n`, `ANALYZE`,
	}
}
