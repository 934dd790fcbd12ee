package app

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestStatsCollector checks that stats are cached between scrapes, and omitted while the
// database cannot be read, without more frequent queries.
func TestStatsCollector(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	now := time.Now()
	f := newStatsCollector(b.db, func() time.Time { return now })
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(f)
	value := func(name string) float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == name {
				return family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	const issued, readable = "agentmarket_credits_issued", "agentmarket_figures_readable"
	expect := func(name string, want float64) {
		t.Helper()
		if got := value(name); got != want {
			t.Errorf("%s is %g, want %g", name, got, want)
		}
	}
	expect(issued, 0)
	b.register(t, "")
	now = now.Add(balancesMaxAge - 1)
	expect(issued, 0)
	now = now.Add(1)
	expect(issued, 100)
	expect("agentmarket_ledger_drift_credits", 0)
	expect(readable, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.baseContext = ctx
	now = now.Add(balancesMaxAge)
	expect(readable, 0)
	expect(issued, -1)
	f.baseContext = t.Context()
	now = now.Add(countsMaxAge - 1)
	expect(readable, 0)
	now = now.Add(1)
	expect(readable, 1)
	expect(issued, 100)
}
