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

	"agentmarket.space/server/internal/audit"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
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
	T          testing.TB
	DB         *database.DB
	Log        *events.Log
	Clock      *Clock
	FakeRunner *FakeRunner
}

// FakeRunner runs every agent that is hired: with ResultFunc, which may be changed, or
// with RunResult when there is one.
type FakeRunner struct {
	ResultFunc  func(ctx context.Context, agent *models.Agent, task *models.Task) (string, error)
	OutcomeFunc func(ctx context.Context, task *models.Task, terms market.RunOptions) (market.RunResult, error)
}

// CheckRunnable refuses agents with nothing to run.
func (*FakeRunner) CheckRunnable(agent *models.Agent) error {
	if agent.ExecutionMode() == models.ModeNone {
		return models.Errorf(models.Conflict, "agent %s takes no direct hires", agent.ID)
	}
	return nil
}

// Run answers as the test says.
func (h *FakeRunner) Run(ctx context.Context, agent *models.Agent, task *models.Task, terms market.RunOptions) (market.RunResult, error) {
	if h.OutcomeFunc != nil {
		return h.OutcomeFunc(ctx, task, terms)
	}
	result, err := h.ResultFunc(ctx, agent, task)
	return market.RunResult{Result: result}, err
}

// noopWebhooks notifies nobody.
type noopWebhooks struct{}

func (noopWebhooks) Subscribe(*database.Tx, string, string, []models.WebhookEvent) (models.Webhook, string, error) {
	return models.Webhook{}, "whsec_test", nil
}
func (noopWebhooks) EnsureSecret(*database.Tx, string) (string, error) { return "whsec_test", nil }
func (noopWebhooks) Notify(*database.Tx, *models.Event) error          { return nil }
func (noopWebhooks) Prune(context.Context) error                       { return nil }
func (noopWebhooks) OldestNeeded(context.Context) (int64, error)       { return math.MaxInt64, nil }

// New makes a market that ends with the test, on the engine that is tested.
func New(t testing.TB) *Bundle {
	t.Helper()
	return NewWithDatabase(t, services.NewDatabase(t))
}

// NewWithDatabase makes a market in a store.
func NewWithDatabase(t testing.TB, address string) *Bundle {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	db, err := database.Open(t.Context(), address, logger)
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	clock := &Clock{now: time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)}
	keys, err := auth.NewKeys(db, clock.Now)
	testutil.Must(t, err)
	log, err := events.Open(t.Context(), db, logger)
	testutil.Must(t, err)
	box, err := auth.NewCipher([]byte("a key for tests only"))
	testutil.Must(t, err)
	hired := &FakeRunner{ResultFunc: func(context.Context, *models.Agent, *models.Task) (string, error) { return "done", nil }}
	b := &Bundle{T: t, DB: db, Log: log, Clock: clock, FakeRunner: hired}
	b.Market = market.New(market.Deps{
		DB: db, Events: log, Keys: keys, Cipher: box, Audit: audit.New(db, clock.Now), Notifier: noopWebhooks{}, DeliveryStore: noopWebhooks{}, Runner: hired, Now: clock.Now, Logger: logger,
		CheckURL:  func(_, url string) (string, error) { return url, nil },
		CheckHost: func(context.Context, string, string) error { return nil },
	}, market.Settings{
		StartingCredits: 100, MinBudget: models.MinBudget, OpenFor: 7 * 24 * time.Hour, Lease: 24 * time.Hour, ExecuteTimeout: time.Minute,
		ExecuteDeadline: time.Hour,
	})
	return b
}

// NewAgent registers an agent with capabilities and an endpoint.
func (b *Bundle) NewAgent(capabilities ...string) auth.Actor {
	b.T.Helper()
	endpoint := "https://agent.example.com/execute"
	out, err := b.Register(b.T.Context(), market.RegisterAgentInput{Name: "Agent", Capabilities: capabilities, EndpointURL: &endpoint})
	testutil.Must(b.T, err)
	return auth.Actor{AgentID: out.Agent.ID, KeyHash: auth.HashKey(out.APIKey)}
}

// NewTask posts a task.
func (b *Bundle) NewTask(poster auth.Actor, budget models.Credits, capabilities ...string) models.Task {
	b.T.Helper()
	out, err := b.Post(b.T.Context(), poster, market.PostTaskInput{
		Title: "Task", Description: "Do it.", Budget: budget, RequiredCapabilities: capabilities,
	})
	testutil.Must(b.T, err)
	return out.Task
}

// Balances returns what an agent can spend and what it set aside.
func (b *Bundle) Balances(agent auth.Actor) (available, held models.Credits) {
	b.T.Helper()
	wallet, err := b.Wallet(b.T.Context(), agent.AgentID)
	testutil.Must(b.T, err)
	return wallet.Available, wallet.Held
}

// VerifyLedger recomputes the ledger and fails the test when a law does not hold.
func (b *Bundle) VerifyLedger() ledger.Report {
	b.T.Helper()
	var report ledger.Report
	testutil.Must(b.T, b.DB.Snapshot(b.T.Context(), func(state *database.Snapshot) (err error) {
		if report, err = ledger.Verify(state); err != nil {
			return err
		}
		sums, err := ledger.ReadBalanceSheet(state)
		if want := (ledger.BalanceSheet{
			Issued: report.Issued, Fees: report.InFees, Available: sums.Available, Held: report.InWallets - sums.Available, Escrow: report.InEscrow,
		}); sums != want || sums.Discrepancy() != 0 {
			b.T.Errorf("the sums are %+v, the ledger has %+v", sums, want)
		}
		return err
	}))
	for _, violation := range report.Violations {
		b.T.Errorf("ledger: %s", violation)
	}
	return report
}

// OfflineResolver finds no name: a test that calls strangers stays on this machine.
func OfflineResolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("this test has no network")
	}}
}
