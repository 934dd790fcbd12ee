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

// TestMain reduces the runs of each property to 30 on PostgreSQL, where every statement is
// a round trip.
func TestMain(m *testing.M) {
	if services.OnPostgres() {
		if err := flag.Set("rapid.checks", "30"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// TestMarket_matchesModel compares the market with a model; see markettest.CheckModel.
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
