package market_test

import (
	"flag"
	"os"
	"testing"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
)

// TestMain has properties looked at 30 times on PostgreSQL, and 100 on SQLite: each
// law after each step is a round trip there. -rapid.checks says otherwise.
func TestMain(m *testing.M) {
	if services.OnPostgres() {
		if err := flag.Set("rapid.checks", "30"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// TestMarket_matchesModel walks the market beside its model; see markettest.CheckModel.
func TestMarket_matchesModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		markettest.CheckModel(t, r, func(tb testing.TB, agents int) (*markettest.Bundle, markettest.MarketAPI, []auth.Actor) {
			tb.Helper()
			b := markettest.New(tb)
			var actors []auth.Actor
			for range agents {
				actors = append(actors, b.NewAgent())
			}
			return b, b.Market, actors
		})
	})
}
