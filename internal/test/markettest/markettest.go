// Package markettest makes a market for tests: a real store in a temporary
// folder, a clock that the test moves, an agent that runs as the test says, and
// verbs that fail the test rather than return an error.
package markettest

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/models"
)

// Clock is a time that only a test moves. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the time on.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Bundle is a market and what a test needs beside it.
type Bundle struct {
	*market.Market
	T     testing.TB
	DB    *database.DB
	Log   *events.Log
	Clock *Clock
	Hired *Hired
}

// Hired runs every agent that is hired: with Answer, which may be changed, or
// with Outcome when there is one.
type Hired struct {
	Answer  func(ctx context.Context, agent *models.Agent, task *models.Task) (string, error)
	Outcome func(ctx context.Context, task *models.Task, terms market.Terms) (market.Outcome, error)
}

// Ready refuses agents with nothing to run.
func (*Hired) Ready(agent *models.Agent) error {
	if agent.ExecutionMode() == models.ModeNone {
		return models.Errorf(models.Conflict, "agent %s takes no direct hires", agent.ID)
	}
	return nil
}

// Run answers as the test says.
func (h *Hired) Run(ctx context.Context, agent *models.Agent, task *models.Task, terms market.Terms) (market.Outcome, error) {
	if h.Outcome != nil {
		return h.Outcome(ctx, task, terms)
	}
	result, err := h.Answer(ctx, agent, task)
	return market.Outcome{Result: result}, err
}

// silent notifies nobody.
type silent struct{}

func (silent) Subscribe(*database.Tx, string, string, []models.WebhookEvent) (models.Webhook, string, error) {
	return models.Webhook{}, "whsec_test", nil
}
func (silent) MintSecret(*database.Tx, string) (string, error) { return "whsec_test", nil }
func (silent) Announce(*database.Tx, *models.Event) error      { return nil }
func (silent) Prune(context.Context) error                     { return nil }
func (silent) Needs(context.Context) (int64, error)            { return math.MaxInt64, nil }

// New makes a market that ends with the test, on the engine that is tested.
func New(t testing.TB) *Bundle {
	t.Helper()
	return NewAt(t, services.Address(t))
}

// NewAt makes a market in a store.
func NewAt(t testing.TB, address string) *Bundle {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	db, err := database.Open(t.Context(), address, logger)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	clock := &Clock{now: time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)}
	keys, err := auth.NewKeys(db, clock.Now)
	must(t, err)
	log, err := events.Open(t.Context(), db, logger)
	must(t, err)
	box, err := auth.NewBox([]byte("a key for tests only"))
	must(t, err)
	hired := &Hired{Answer: func(context.Context, *models.Agent, *models.Task) (string, error) { return "done", nil }}
	b := &Bundle{T: t, DB: db, Log: log, Clock: clock, Hired: hired}
	b.Market = market.New(market.Parts{
		DB: db, Events: log, Keys: keys, Box: box, Notifier: silent{}, Records: silent{}, Runner: hired, Now: clock.Now, Logger: logger,
		CheckURL:  func(_, url string) (string, error) { return url, nil },
		CheckName: func(context.Context, string, string) error { return nil },
	}, market.Settings{
		StartingCredits: 100, MinBudget: models.MinBudget, OpenFor: 7 * 24 * time.Hour, Lease: 24 * time.Hour, ExecuteTimeout: time.Minute,
		ExecuteDeadline: time.Hour,
	})
	return b
}

// Agent registers an agent with capabilities and an endpoint.
func (b *Bundle) Agent(capabilities ...string) auth.Actor {
	b.T.Helper()
	endpoint := "https://agent.example.com/execute"
	out, err := b.Register(b.T.Context(), market.RegisterAgentInput{Name: "Agent", Capabilities: capabilities, EndpointURL: &endpoint})
	must(b.T, err)
	return auth.Actor{AgentID: out.Agent.ID, Key: auth.HashKey(out.APIKey)}
}

// Posted posts a task.
func (b *Bundle) Posted(poster auth.Actor, budget models.Credits, capabilities ...string) models.Task {
	b.T.Helper()
	out, err := b.Post(b.T.Context(), poster, market.PostTaskInput{
		Title: "Task", Description: "Do it.", Budget: budget, RequiredCapabilities: capabilities,
	})
	must(b.T, err)
	return out.Task
}

// Balances returns what an agent can spend and what it set aside.
func (b *Bundle) Balances(agent auth.Actor) (available, held models.Credits) {
	b.T.Helper()
	wallet, err := b.Wallet(b.T.Context(), agent.AgentID)
	must(b.T, err)
	return wallet.Available, wallet.Held
}

// Verified recomputes the ledger and fails the test when a law does not hold.
func (b *Bundle) Verified() ledger.Report {
	b.T.Helper()
	var report ledger.Report
	must(b.T, b.DB.Snapshot(b.T.Context(), func(state *database.State) (err error) {
		if report, err = ledger.Verify(state); err != nil {
			return err
		}
		sums, err := ledger.Balanced(state)
		if want := (ledger.Balance{
			Issued: report.Issued, Fees: report.InFees, Available: sums.Available, Held: report.InWallets - sums.Available, Escrow: report.InEscrow,
		}); sums != want || sums.Drift() != 0 {
			b.T.Errorf("the sums are %+v, the ledger has %+v", sums, want)
		}
		return err
	}))
	for _, violation := range report.Violations {
		b.T.Errorf("ledger: %s", violation)
	}
	return report
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Offline finds no name: a test that calls strangers stays on this machine.
func Offline() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("this test has no network")
	}}
}
