// Package markettest opens a market for a test: a real database, a clock that the test
// moves, a fake runner and fake webhooks, and helpers that fail the test instead of
// returning an error.
package markettest

import (
	"context"
	"errors"
	"log/slog"
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

// Clock is a clock that moves only when the test advances it. It is safe for concurrent
// use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now returns the current time of the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock forward by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Bundle is a market with its dependencies.
type Bundle struct {
	*market.Market
	T            testing.TB
	DB           *database.DB
	Log          *events.Log
	Keys         *auth.Keys
	Cipher       *auth.Cipher
	Audit        *audit.Log
	Logger       *slog.Logger // discards everything
	Clock        *Clock
	FakeRunner   *FakeRunner
	FakeWebhooks *FakeWebhooks
	// OnKeyRevoked is called for every revoked key. A test can set it.
	OnKeyRevoked func(auth.KeyHash)
}

// New opens a market on a new database of the engine under test. It is closed when the
// test ends. Each option changes the market's dependencies before it is created.
func New(tb testing.TB, options ...func(*market.Deps)) *Bundle {
	tb.Helper()
	return NewWithDatabase(tb, services.NewDatabase(tb), options...)
}

// NewWithDatabase is [New] on the database at an address.
func NewWithDatabase(tb testing.TB, address string, options ...func(*market.Deps)) *Bundle {
	tb.Helper()
	b := &Bundle{
		T: tb, Logger: slog.New(slog.DiscardHandler), Clock: &Clock{now: time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)},
		FakeRunner:   &FakeRunner{ResultFunc: func(context.Context, *models.Agent, *models.Task) (string, error) { return "done", nil }},
		FakeWebhooks: &FakeWebhooks{},
	}
	var err error
	b.DB, err = database.Open(tb.Context(), address, b.Logger)
	testutil.Must(tb, err)
	tb.Cleanup(func() { testutil.Must(tb, b.DB.Close()) })
	b.Keys, err = auth.NewKeys(b.DB, b.Clock.Now, auth.KeyHooks{OnRevoked: func(hash auth.KeyHash) {
		if b.OnKeyRevoked != nil {
			b.OnKeyRevoked(hash)
		}
	}})
	testutil.Must(tb, err)
	b.Log, err = events.Open(tb.Context(), b.DB, b.Logger)
	testutil.Must(tb, err)
	b.Cipher, err = auth.NewCipher([]byte("a key for tests only"))
	testutil.Must(tb, err)
	b.Audit = audit.New(b.DB, b.Clock.Now)
	deps := market.Deps{
		DB: b.DB, Events: b.Log, Keys: b.Keys, Cipher: b.Cipher, Audit: b.Audit, Webhooks: b.FakeWebhooks, Runner: b.FakeRunner,
		CheckURL:  func(_, url string) (string, error) { return url, nil },
		CheckHost: func(context.Context, string, string) error { return nil },
		Now:       b.Clock.Now, Logger: b.Logger,
	}
	for _, option := range options {
		option(&deps)
	}
	b.Market = market.New(deps, market.Settings{
		StartingCredits: 100, MinBudget: models.MinBudget, OpenFor: 7 * 24 * time.Hour, Lease: 24 * time.Hour, ExecuteTimeout: time.Minute,
		ExecutionDeadline: time.Hour,
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

// Balances returns an agent's available and held credits.
func (b *Bundle) Balances(agent auth.Actor) (available, held models.Credits) {
	b.T.Helper()
	wallet, err := b.Wallet(b.T.Context(), agent.AgentID)
	testutil.Must(b.T, err)
	return wallet.Available, wallet.Held
}

// VerifyLedger recomputes the ledger, compares it with the balance sheet and fails the
// test for every violation.
func (b *Bundle) VerifyLedger() ledger.Report {
	b.T.Helper()
	var report ledger.Report
	testutil.Must(b.T, b.DB.Snapshot(b.T.Context(), func(snapshot *database.Snapshot) (err error) {
		if report, err = ledger.Verify(snapshot); err != nil {
			return err
		}
		sheet, err := ledger.ReadBalanceSheet(snapshot)
		if want := (ledger.BalanceSheet{
			Issued: report.Issued, Fees: report.InFees, Available: sheet.Available, Held: report.InWallets - sheet.Available, Escrow: report.InEscrow,
		}); sheet != want || sheet.Discrepancy() != 0 {
			b.T.Errorf("balance sheet is %+v, the ledger adds up to %+v", sheet, want)
		}
		return err
	}))
	for _, violation := range report.Violations {
		b.T.Errorf("ledger: %s", violation)
	}
	return report
}

// OfflineResolver returns a resolver that resolves no name, so that a test never calls
// another machine.
func OfflineResolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("this test has no network")
	}}
}
